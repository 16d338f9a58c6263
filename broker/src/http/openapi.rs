//! `/v1/openapi.json` (OpenAPI 3.1), made from the table of routes: it cannot say more or less than is
//! served. Bodies are described by a sentence each; their types are `proto::api`.

use super::routes::{Route, Who};
use serde_json::{Map, Value, json};

/// The description of these routes, as the broker of this public URL serves them.
pub fn document(routes: &[Route], public_url: &str) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let path = plain(route.path);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(route.method.as_str().to_ascii_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Countersign",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "People, devices and CI jobs. Registries' own protocols are spoken at other origins.",
        },
        "servers": [{"url": public_url}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "idToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                    "description": "An id token whose audience is this broker's public URL."},
                "ticket": {"type": "http", "scheme": "bearer",
                    "description": "The request's ticket, cst_…"},
                "device": {"type": "apiKey", "in": "header", "name": "DPoP",
                    "description": "The call signed by an enrolled device: htm, htu, iat, jti, nonce, and ath as the body's SHA-256 (shape of RFC 9449)."},
            },
            "schemas": {"Problem": {
                "type": "object",
                "description": "RFC 9457",
                "required": ["code", "title", "status"],
                "properties": {
                    "code": {"type": "string"},
                    "title": {"type": "string"},
                    "detail": {"type": "string"},
                    "status": {"type": "integer"},
                },
            }},
            "responses": {"Problem": {
                "description": "Not done; `code` is stable.",
                "content": {"application/problem+json":
                    {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }},
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "summary": route.summary,
        "description": who(route.who),
        "security": security(route.who),
        "responses": {
            "200": {"description": "Done."},
            "default": {"$ref": "#/components/responses/Problem"},
        },
    });
    let parameters: Vec<_> = named(route.path)
        .map(|name| (name, "path"))
        .chain(route.query.iter().map(|name| (*name, "query")))
        .map(|(name, place)| {
            json!({"name": name, "in": place, "required": place == "path",
                   "schema": {"type": "string"}})
        })
        .collect();
    if let Some(fields) = operation.as_object_mut() {
        if !parameters.is_empty() {
            fields.insert("parameters".to_owned(), parameters.into());
        }
        if [http::Method::POST, http::Method::PUT].contains(&route.method) {
            let body = json!({"content": {"application/json": {"schema": {"type": "object"}}}});
            fields.insert("requestBody".to_owned(), body);
        }
    }
    operation
}

/// OpenAPI has no sign for a parameter that holds slashes.
pub fn plain(path: &str) -> String {
    path.replace("{*", "{")
}

/// The names in a path's braces.
fn named(path: &str) -> impl Iterator<Item = &str> {
    path.split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .map(|name| name.trim_start_matches('*'))
}

/// Each of the schemes alone is enough; none at all is everybody.
fn security(who: Who) -> Value {
    match who {
        Who::Anyone => json!([]),
        Who::Caller => json!([{"idToken": []}]),
        Who::Ticket => json!([{"ticket": []}]),
        Who::TicketOrPerson => json!([{"ticket": []}, {"device": []}]),
        Who::Person | Who::Admin | Who::AdminSealed => json!([{"device": []}]),
    }
}

const fn who(who: Who) -> &'static str {
    match who {
        Who::Anyone => "Everybody.",
        Who::Caller => "A CI job with an id token.",
        Who::Ticket => "Whoever holds the request's ticket.",
        Who::TicketOrPerson => {
            "Whoever holds the request's ticket, or an enrolled person's device."
        }
        Who::Person => "An enrolled person's device.",
        Who::Admin => "An admin's device.",
        Who::AdminSealed => "An admin's device; works while the vault is sealed.",
    }
}
