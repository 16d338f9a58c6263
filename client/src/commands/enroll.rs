//! `enroll` and `totp`: make this machine a device of a person.

use crate::{
    context::{Context, Device},
    edge,
    fail::Failure,
    http::{Broker, Proof},
    profile::{Home, Profile, ask_line, ask_secret, passphrase},
    witness,
};
use proto::{
    api::{BrokerStatus, EnrollRequest, Enrolled, UnsealFirst},
    bearer::{Bearer, Kind},
    device::{DeviceKey, DeviceKind, enrolment_bytes},
    digest::hex,
    problem::Code,
    text::harmless,
};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};
use std::path::PathBuf;
use totp_rs::Totp;
use zeroize::Zeroizing;

/// Most bytes of a device's name.
const NAME_MAX: usize = 60;

/// Make this machine one of your devices. An admin gives you the invite (single use, 24 h).
///
/// A key is made here and never leaves this machine: it lies in COUNTERSIGN_HOME in an age file under
/// a passphrase, which you type or which your keyring's own command gives. Then the broker gives a
/// second factor for your authenticator, and its first code finishes the enrolment.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  countersign --broker https://broker.example.org enroll --name laptop
  COUNTERSIGN_INVITE=csi_… countersign enroll --totp-file totp.txt

With a keyring: COUNTERSIGN_PASSPHRASE_COMMAND is run and prints the passphrase, for example
  secret-tool lookup app countersign                       (Linux: Secret Service)
  security find-generic-password -s countersign -w         (macOS: Keychain)

Without a terminal: COUNTERSIGN_PASSPHRASE, COUNTERSIGN_PASSPHRASE_FILE or \
COUNTERSIGN_PASSPHRASE_COMMAND, COUNTERSIGN_INVITE or --invite-file, and --totp-file (the first code is then made from that file). \
The first admin of a broker without [unseal] also gives --vault-passphrase-file.")]
pub(crate) struct Args {
    /// A name for this device
    #[arg(long, default_value = "laptop")]
    name: String,
    /// A file with the invite (`-` is standard input); else COUNTERSIGN_INVITE, else a prompt
    #[arg(long, value_name = "FILE")]
    invite_file: Option<PathBuf>,
    /// Write the second factor's otpauth address to this file (mode 0600) instead of drawing it.
    /// That keeps both factors on one machine: whoever takes over this machine has both
    #[arg(long, value_name = "FILE")]
    totp_file: Option<PathBuf>,
    /// First admin of a new broker that is sealed: a file with the passphrase that `countersignd init`
    /// printed (`-` is standard input); asked for when the broker needs it
    #[arg(long, value_name = "FILE")]
    vault_passphrase_file: Option<PathBuf>,
}

/// Show the current code of an otpauth file, and for how many seconds it holds.
///
/// For machines without a phone, and for trying things out. It keeps both factors on one machine:
/// whoever takes over this machine has both.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  countersign approve <ID> --match-code 123456 --totp \"$(countersign totp --file totp.txt --quiet)\"")]
pub(crate) struct TotpArgs {
    /// The file that `enroll --totp-file` wrote
    #[arg(long)]
    file: PathBuf,
    /// Print the code alone
    #[arg(long, short)]
    quiet: bool,
}

/// `countersign enroll`
pub(crate) async fn enroll(context: &Context, args: &Args) -> Result<(), Failure> {
    proto::text::check(&args.name, NAME_MAX)
        .map_err(|e| Failure::usage(format!("The device's name {e}."), "Choose another name."))?;
    let home = context.home()?;
    if let Some(profile) = home.profile()? {
        return Err(Failure::usage(
            format!("This device is enrolled already, as {}.", profile.person),
            "Set COUNTERSIGN_HOME to another folder for another person.",
        ));
    }
    if context.out.json && args.totp_file.is_none() {
        return Err(Failure::usage(
            "With --json nobody can scan the second factor.",
            "Give --totp-file FILE.",
        ));
    }
    let broker = context.broker()?;
    let invite = invite(context, args)?;
    let key = own_key(context, &home)?;
    let mut request = request(&invite, &key, &args.name);
    let first = match broker.post("/v1/enroll", &request, Proof::Nobody).await {
        Err(f) if f.code == Some(Code::PassphraseNeeded) => {
            unseal_first(context, args, &broker, &request).await
        }
        done => done,
    };
    let first: Enrolled = first?;
    is_ours(&first, &key)?;
    let enrolled = if first.done {
        first
    } else {
        let otpauth = Zeroizing::new(first.otpauth.clone().unwrap_or_default());
        second_factor(context, args, &broker, &mut request, &otpauth).await?
    };
    is_ours(&enrolled, &key)?;
    let status: BrokerStatus = broker.get("/v1/status", Proof::Nobody).await?;
    let profile = Profile {
        broker: broker.base().to_owned(),
        person: enrolled.person,
        device: enrolled.device,
        device_name: args.name.clone(),
        log_key: status.log_key,
        checkpoint: None,
        seen: None,
    };
    home.store_profile(&profile)?;
    let device = Device {
        profile,
        key,
        broker,
    };
    // From its first moment on this device is a witness of the log.
    if let Err(failure) = witness::follow(context, &device).await {
        context
            .out
            .note(&format!("  The log was not seen yet: {}", failure.what));
    }
    let profile = device.profile;
    let text = format!(
        "enrolled {} as {} ({})",
        profile.device, profile.person, profile.device_name
    );
    let value = serde_json::json!({"person": profile.person, "device": profile.device});
    context.out.result(&value, &text)
}

/// The first admin of a sealed broker opens its vault with the enrolment itself. Only a broker that
/// knows the invite asks for this.
async fn unseal_first(
    context: &Context,
    args: &Args,
    broker: &Broker,
    request: &EnrollRequest,
) -> Result<Enrolled, Failure> {
    context
        .out
        .note("The broker is new and its vault is sealed: the first enrolment opens it.");
    let passphrase = match &args.vault_passphrase_file {
        Some(path) => edge::read_secret(path)?,
        None => ask_secret(
            "The vault's passphrase, as `countersignd init` printed it",
            false,
            "Give --vault-passphrase-file.",
        )?,
    };
    let unseal = UnsealFirst {
        enrolment: request.clone(),
        passphrase: passphrase.trim().to_owned(),
    };
    broker
        .post("/v1/enroll/unseal", &unseal, Proof::Nobody)
        .await
}

/// The key of an enrolment that was broken off, whose invite is bound to it, or a new one. It is
/// stored before the broker hears of it, so that no lost reply can lose the invite.
fn own_key(context: &Context, home: &Home) -> Result<DeviceKey, Failure> {
    if home.key_path().exists() {
        return home.key(&context.env);
    }
    let phrase = passphrase(&context.env, true)?;
    let key = DeviceKey::from_seed(edge::random()?)
        .map_err(|e| Failure::failed(format!("The new key {e}."), "Run the command again."))?;
    home.store_key(&key, phrase)?;
    Ok(key)
}

/// Shows the second factor and sends its first code; a mistyped one may be typed again.
async fn second_factor(
    context: &Context,
    args: &Args,
    broker: &Broker,
    request: &mut EnrollRequest,
    otpauth: &str,
) -> Result<Enrolled, Failure> {
    let totp = parse(otpauth)?;
    if let Some(path) = &args.totp_file {
        edge::write_private(path, format!("{otpauth}\n").as_bytes())?;
        request.totp = Some(code(&totp).0);
        return finish(broker, request).await;
    }
    show(context, otpauth)?;
    let mut tries = 3;
    loop {
        let typed = ask_line(
            "The code that it shows now",
            "Use --totp-file where nobody can type.",
        )?;
        request.totp = Some(typed.trim().to_owned());
        match finish(broker, request).await {
            Err(f) if f.code == Some(Code::FactorWrong) && tries > 1 => {
                context.out.note(&format!("  {} Try again.", f.what));
                tries -= 1;
            }
            done => return done,
        }
    }
}

/// Draws a second factor for an authenticator's camera.
pub(super) fn show(context: &Context, otpauth: &str) -> Result<(), Failure> {
    context.out.note("Scan this with your authenticator:\n");
    context.out.note(&draw(otpauth)?);
    context
        .out
        .note("If it cannot scan, type this address into it (it is secret):");
    context.out.note(&format!("  {}\n", harmless(otpauth)));
    Ok(())
}

async fn finish(broker: &Broker, request: &EnrollRequest) -> Result<Enrolled, Failure> {
    let enrolled: Enrolled = broker.post("/v1/enroll", request, Proof::Nobody).await?;
    if enrolled.done {
        return Ok(enrolled);
    }
    Err(Failure::failed(
        "The broker did not finish the enrolment.",
        "Ask an admin for a new invite.",
    ))
}

/// Attack 35: the broker must have enrolled this key and no other.
fn is_ours(enrolled: &Enrolled, key: &DeviceKey) -> Result<(), Failure> {
    if enrolled.device == key.public().id() {
        return Ok(());
    }
    Err(Failure::refused(
        "The broker enrolled another device than this one.",
        "Tell its admin, and ask for a new invite.",
    ))
}

fn request(invite: &Bearer, key: &DeviceKey, name: &str) -> EnrollRequest {
    // The device does not know the person's name before the broker tells it: what it signs is the
    // invite's hash and its own name.
    let signed = enrolment_bytes(&invite.hash().0, name);
    EnrollRequest {
        invite: invite.expose(),
        public_key: key.public(),
        signature: hex(&key.sign(&signed)),
        device_name: name.to_owned(),
        kind: DeviceKind::Terminal,
        totp: None,
        passkey: None,
    }
}

/// The invite by file, environment or prompt; never by argument, which every process could read.
fn invite(context: &Context, args: &Args) -> Result<Bearer, Failure> {
    let text = if let Some(path) = &args.invite_file {
        edge::read_secret(path)?
    } else if let Some(text) = context.env.get("COUNTERSIGN_INVITE") {
        Zeroizing::new(text.to_owned())
    } else {
        ask_secret(
            "Invite (csi_…)",
            false,
            "Set COUNTERSIGN_INVITE or give --invite-file.",
        )?
    };
    Bearer::parse(Kind::Invite, text.trim()).map_err(|e| {
        Failure::usage(
            format!("The invite {e}."),
            "Copy it again; ask the admin for a new one if it was used.",
        )
    })
}

/// A QR code of half blocks.
fn draw(text: &str) -> Result<String, Failure> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).map_err(|e| {
        Failure::failed(
            format!("The QR code cannot be drawn: {e}."),
            "Use --totp-file.",
        )
    })?;
    // Dark modules are drawn as the terminal's background, light ones as blocks: most terminals are dark.
    Ok(code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build())
}

pub(super) fn parse(otpauth: &str) -> Result<Totp, Failure> {
    Totp::from_url(otpauth.trim()).map_err(|_| {
        Failure::failed(
            "The second factor is no otpauth address.",
            "Check that client and broker have the same version.",
        )
    })
}

/// The code of this moment, and for how many seconds it holds.
pub(super) fn code(totp: &Totp) -> (String, u64) {
    let now = edge::now().0;
    (
        totp.generate(now).to_string(),
        totp.next_step(now).saturating_sub(now),
    )
}

/// `countersign totp`
pub(crate) fn totp(context: &Context, args: &TotpArgs) -> Result<(), Failure> {
    let text = edge::read_secret(&args.file)?;
    let (code, seconds) = code(&parse(&text)?);
    if args.quiet {
        return context.out.line(&code);
    }
    let value = serde_json::json!({"code": code, "seconds": seconds});
    context
        .out
        .result(&value, &format!("{code}  ({seconds} s left)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "otpauth://totp/Countersign:alice?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Countersign";

    #[test]
    fn the_code_is_rfc_6238s() {
        let totp = parse(URL).unwrap();
        // RFC 6238 appendix B, SHA-1, the last 6 of its 8 digits.
        assert_eq!(totp.generate(59).to_string(), "287082");
        assert_eq!(totp.generate(1_111_111_109).to_string(), "081804");
        assert!(parse("https://x").is_err());
        assert!(draw(URL).unwrap().contains('█'));
    }

    #[test]
    fn attack_35_an_enrolment_of_another_device_is_refused() {
        let key = DeviceKey::from_seed([1; 32]).unwrap();
        let other = DeviceKey::from_seed([2; 32]).unwrap();
        let enrolled = |key: &DeviceKey| Enrolled {
            person: "alice".parse().unwrap(),
            device: key.public().id(),
            qr: None,
            passkey: None,
            otpauth: None,
            done: true,
        };
        assert!(is_ours(&enrolled(&key), &key).is_ok());
        assert_eq!(is_ours(&enrolled(&other), &key).unwrap_err().exit as u8, 5);
    }

    #[test]
    fn a_broken_off_enrolment_goes_on_with_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let env = edge::Env::from([
            ("COUNTERSIGN_HOME", dir.path().to_str().unwrap()),
            ("COUNTERSIGN_PASSPHRASE", "p"),
        ]);
        let context = Context {
            out: crate::out::Out::new(true, &env),
            env,
            broker: None,
        };
        let home = context.home().unwrap();
        let first = own_key(&context, &home).unwrap().public();
        assert_eq!(own_key(&context, &home).unwrap().public(), first);
    }

    #[test]
    fn the_request_proves_the_key() {
        let key = DeviceKey::from_seed([1; 32]).unwrap();
        let invite = Bearer::from_entropy(Kind::Invite, [4; 32]);
        let r = request(&invite, &key, "laptop");
        let signature = proto::digest::unhex(&r.signature).unwrap();
        assert!(
            key.public()
                .verify(&enrolment_bytes(&invite.hash().0, "laptop"), &signature)
        );
    }
}
