//! What every command works with.

use crate::{
    edge::Env,
    fail::Failure,
    http::{Broker, Proof},
    out::Out,
    profile::{Home, Profile, not_enrolled},
};
use proto::device::DeviceKey;

/// Environment, output and the broker's address.
pub(crate) struct Context {
    /// The environment.
    pub(crate) env: Env,
    /// Where to print.
    pub(crate) out: Out,
    /// `--broker` or `COUNTERSIGN_BROKER`.
    pub(crate) broker: Option<String>,
}

/// An enrolled device that can sign.
pub(crate) struct Device {
    /// What it knows.
    pub(crate) profile: Profile,
    /// Its key.
    pub(crate) key: DeviceKey,
    /// Its broker.
    pub(crate) broker: Broker,
}

impl Device {
    /// The proof for a call.
    pub(crate) fn proof(&self) -> Proof<'_> {
        Proof::Device(&self.key)
    }
}

impl Context {
    /// This device's folder.
    pub(crate) fn home(&self) -> Result<Home, Failure> {
        Home::new(&self.env)
    }

    /// The broker by flag, environment or profile.
    pub(crate) fn broker(&self) -> Result<Broker, Failure> {
        if let Some(text) = &self.broker {
            return Broker::new(text, &self.env);
        }
        match self.home().and_then(|h| h.profile()) {
            Ok(Some(profile)) => Broker::new(&profile.broker, &self.env),
            _ => Err(Failure::usage(
                "No broker is named.",
                "Give --broker https://… or set COUNTERSIGN_BROKER.",
            )),
        }
    }

    /// The enrolled device with its key; asks for the passphrase.
    pub(crate) fn device(&self) -> Result<Device, Failure> {
        let home = self.home()?;
        let profile = home.profile()?.ok_or_else(not_enrolled)?;
        let broker = self.broker_of(&profile)?;
        let key = home.key(&self.env)?;
        if key.public().id() != profile.device {
            return Err(Failure::refused(
                "The key file is not this profile's.",
                "Restore both files from the same backup, or enrol again.",
            ));
        }
        Ok(Device {
            profile,
            key,
            broker,
        })
    }

    /// Attack 35: a device signs for the broker that enrolled it, and for no other.
    fn broker_of(&self, profile: &Profile) -> Result<Broker, Failure> {
        let own = Broker::new(&profile.broker, &self.env)?;
        if let Some(text) = &self.broker
            && Broker::new(text, &self.env)?.base() != own.base()
        {
            return Err(Failure::refused(
                format!("This device is enrolled at {}, not at {text}.", own.base()),
                "Leave out --broker and COUNTERSIGN_BROKER, or set COUNTERSIGN_HOME to the other profile.",
            ));
        }
        Ok(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_35_a_device_signs_for_its_own_broker_only() {
        let env = Env::default();
        let context = |broker: Option<&str>| Context {
            env: env.clone(),
            out: Out::new(true, &env),
            broker: broker.map(Into::into),
        };
        let profile = Profile {
            broker: "https://a.example".into(),
            person: "alice".parse().unwrap(),
            device: DeviceKey::from_seed([1; 32]).unwrap().public().id(),
            device_name: "x".into(),
            log_key: None,
            checkpoint: None,
            seen: None,
        };
        assert!(context(None).broker_of(&profile).is_ok());
        assert!(
            context(Some("https://a.example/"))
                .broker_of(&profile)
                .is_ok()
        );
        let other = context(Some("https://b.example")).broker_of(&profile);
        assert_eq!(other.err().unwrap().exit as u8, 5);
    }
}
