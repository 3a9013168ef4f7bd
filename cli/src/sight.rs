//! How bodies are looked at, from the arguments: with which keys, and whether behind masks.

use std::path::PathBuf;

use clap::Args;
use sagabus_core::Keyring;
use sagabus_ops::{Masks, Sight};

use crate::arguments::{DeadLettersVerb, Noun, OutboxVerb};
use crate::failure::Failure;
use crate::locks::LocksVerb;
use crate::timers::TimersVerb;

/// Which keys there are.
#[derive(Debug, Args)]
pub(crate) struct KeyringArgument {
    /// Open and seal bodies with the keys in this file.
    #[arg(
        long,
        env = "SAGABUS_KEYRING",
        hide_env_values = true,
        value_name = "FILE"
    )]
    keyring: Option<PathBuf>,
}

/// How bodies are looked at.
#[derive(Debug, Args)]
pub(crate) struct SightArguments {
    #[command(flatten)]
    keys: KeyringArgument,
    /// Show what is masked, too.
    #[arg(long)]
    reveal: bool,
}

impl KeyringArgument {
    /// Reads the keys that are named. No error repeats one.
    fn read(&self) -> Result<Option<Keyring>, Failure> {
        let named = self.keyring.as_ref();
        let Some(path) = named.filter(|path| !path.as_os_str().is_empty()) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            let path = path.display();
            Failure::Usage(format!("keyring `{path}` cannot be read: {error} [SB0120]"))
        })?;
        let keyring = Keyring::parse(&text).map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Some(keyring))
    }
}

impl SightArguments {
    /// Reads the keys, and says how bodies are seen.
    pub(crate) fn read(&self) -> Result<Sight, Failure> {
        Ok(Sight {
            keyring: self.keys.read()?,
            masks: match self.reveal {
                true => Masks::Lifted,
                false => Masks::Kept,
            },
        })
    }
}

/// Says how a question's bodies are seen: sealed and masked, where it does not say otherwise.
pub(crate) fn of(noun: &Noun) -> Result<Sight, Failure> {
    match noun {
        Noun::DeadLetters(
            DeadLettersVerb::Show { sight, .. } | DeadLettersVerb::Edit { sight, .. },
        )
        | Noun::Outbox(OutboxVerb::Show { sight, .. })
        | Noun::Timers(TimersVerb::Show { sight, .. })
        | Noun::Audit { sight, .. } => sight.read(),
        Noun::Locks(LocksVerb::Break { keys, .. }) => Ok(Sight {
            keyring: keys.read()?,
            ..Sight::default()
        }),
        _ => Ok(Sight::default()),
    }
}
