#!/usr/bin/env python3
"""Makes the vectors of the broker's macaroon tests with the two reference libraries, so that our own code is
compared with theirs. Run once with tests/parts/venv; the result is committed.

    tests/parts/venv/bin/python tests/parts/macaroon-vectors.py > broker/src/registry/pypi/macaroon_vectors.json
"""

import json

import pymacaroons
import pypitoken

DOMAIN = "index.example"
IDENTIFIER = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
KEY = "root key of the vectors"
ID = "0b6cf8a4-5a1d-4d4e-8f57-2f2f0b3f9d10"


def vector(name, base, added):
    """What pymacaroons makes of a token by adding these caveats."""
    macaroon = pymacaroons.Macaroon.deserialize(base.split("-", 1)[1])
    for caveat in added:
        macaroon.add_first_party_caveat(caveat)
    narrowed = "pypi-" + macaroon.serialize()
    pymacaroons_ok = pymacaroons.Verifier()
    pymacaroons_ok.satisfy_general(lambda _: True)
    assert pymacaroons_ok.verify(macaroon, KEY)
    return {"name": name, "token": base, "add": added, "narrowed": narrowed}


def main():
    def token():
        return pypitoken.Token.create(domain=DOMAIN, identifier=IDENTIFIER, key=KEY, prefix="pypi")

    plain = token()
    scoped = token()
    scoped.restrict(project_names=["acme-demo"])
    # As the index writes a project's token: by name and by id.
    both = token()
    both.restrict(project_names=["acme-demo"])
    both.restrict(project_ids=[ID])
    expiry = "[0,1800000000,1799999640]"
    project = '[1,["acme-demo"]]'
    by_id = f'[2,["{ID}"]]'
    long = json.dumps([1, [f"acme-{n}" for n in range(40)]], separators=(",", ":"))
    vectors = [
        vector("a user's token, to one project for a while", plain.dump(), [expiry, project]),
        vector("a project's token, for a while", scoped.dump(), [expiry]),
        vector("a caveat whose length needs two bytes", plain.dump(), [long]),
        vector("nothing added", scoped.dump(), []),
        vector("a user's token, to one project by its name and by its id", plain.dump(), [expiry, project, by_id]),
        vector("a token of the index's own for a project, the same again", both.dump(), [expiry, project, by_id]),
    ]
    # The other library reads what was added as the index would.
    narrowed = pypitoken.Token.load(vectors[0]["narrowed"])
    narrowed.check(key=KEY, project_name="acme-demo", now=1799999700)
    for project_name, now in [("acme-other", 1799999700), ("acme-demo", 1800000000), ("acme-demo", 1799999639)]:
        try:
            narrowed.check(key=KEY, project_name=project_name, now=now)
        except pypitoken.ValidationError:
            continue
        raise SystemExit(f"{project_name} at {now} was let through")
    for number in (4, 5):
        narrowed = pypitoken.Token.load(vectors[number]["narrowed"])
        narrowed.check(key=KEY, project_name="acme-demo", project_id=ID, now=1799999700)
        for project_name, project_id in [("acme-demo", IDENTIFIER), ("acme-demo", None), ("acme-other", ID)]:
            try:
                narrowed.check(key=KEY, project_name=project_name, project_id=project_id, now=1799999700)
            # The library's own way of saying that several caveats are not met.
            except (pypitoken.ValidationError, ValueError):
                continue
            raise SystemExit(f"{project_name} of id {project_id} was let through")
    print(json.dumps({"key": KEY, "vectors": vectors}, indent=2))


main()
