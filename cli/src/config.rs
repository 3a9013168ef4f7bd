//! `sagabus.toml`: what would else be typed each time. A word on the command line comes first, then
//! the environment, then the profile, then what stands above all profiles.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Subcommand, ValueEnum};
use sagabus_ops::Role;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output::Form;
use crate::place::holds_password;
use crate::text::cut;

/// The file that is looked for in the current folder where none is named.
const FILE: &str = "sagabus.toml";
/// A file of hundreds of profiles; what is larger is another file.
const BYTES_MAX: u64 = 64 * 1024;
/// Characters of a name that an error repeats.
const NAME_CHARS_MAX: usize = 40;

/// What one profile says, or what stands above all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    store: Option<String>,
    role: Option<Role>,
    output: Option<Form>,
    who: Option<String>,
}

/// A whole file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    above: Settings,
    profile: Option<String>,
    profiles: BTreeMap<String, Settings>,
}

/// Why a file cannot be used. Values are never repeated: one may hold a password.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) fact: String,
}

/// Fills in from the file what neither command line nor environment says.
pub(crate) fn fill_in<N: Subcommand>(
    matches: &ArgMatches,
    arguments: &mut Arguments<N>,
) -> Result<(), Failure> {
    let profile = arguments.profile.as_deref();
    let named = arguments.config.as_deref();
    let file = named.unwrap_or(Path::new(FILE));
    let Some(text) = read(file)? else {
        if named.is_none() && profile.is_none() {
            return Ok(());
        }
        let fact = format!("there is no file `{}`", file.display());
        return Err(wrong(format!("{fact}; name one with `--config`")));
    };
    settings(file, &text, profile)?.fill(matches, arguments);
    Ok(())
}

fn wrong(fact: String) -> Failure {
    Failure::Usage(format!("{fact} [SB0307]"))
}

/// Reads a file; none where there is none.
fn read(file: &Path) -> Result<Option<String>, Failure> {
    let refused = |error: io::Error| wrong(format!("cannot read `{}`: {error}", file.display()));
    let opened = match fs::File::open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(refused)?,
    };
    let mut text = String::new();
    let mut part = opened.take(BYTES_MAX + 1);
    part.read_to_string(&mut text).map_err(refused)?;
    if text.len() as u64 > BYTES_MAX {
        let fact = format!("`{}` has more than {BYTES_MAX} bytes", file.display());
        return Err(wrong(fact));
    }
    Ok(Some(text))
}

/// Reads what a file says for a profile, and warns where others may read a password in it.
fn settings(file: &Path, text: &str, profile: Option<&str>) -> Result<Settings, Failure> {
    let config = Config::read(text).map_err(|error| {
        let place = format!("`{}`, line {}", file.display(), error.line);
        wrong(format!("{place}: {}", error.fact))
    })?;
    if config.holds_password() && is_open_to_others(file) {
        let name = file.display();
        crate::output::warn(&format!(
            "`{name}` holds a password, and others may read it: chmod 600 {name}"
        ));
    }
    let refused = |fact| wrong(format!("`{}` {fact}", file.display()));
    config.choose(profile).map_err(refused)
}

#[cfg(unix)]
fn is_open_to_others(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    /// Read by the group, or by everybody.
    const READ_BY_OTHERS: u32 = 0o044;
    fs::metadata(file).is_ok_and(|data| data.permissions().mode() & READ_BY_OTHERS != 0)
}

/// Elsewhere a file has no such bits.
#[cfg(not(unix))]
fn is_open_to_others(_: &Path) -> bool {
    false
}

impl Settings {
    /// Takes what is said here, else what is said there.
    fn or(self, other: Self) -> Self {
        Self {
            store: self.store.or(other.store),
            role: self.role.or(other.role),
            output: self.output.or(other.output),
            who: self.who.or(other.who),
        }
    }

    fn fill<N: Subcommand>(self, matches: &ArgMatches, arguments: &mut Arguments<N>) {
        let is_open = |name: &str| {
            let source = matches.value_source(name);
            matches!(source, None | Some(ValueSource::DefaultValue))
        };
        if is_open("store") {
            arguments.store = self.store.or(arguments.store.take());
        }
        if let (true, Some(role)) = (is_open("role"), self.role) {
            arguments.operator.role = role;
        }
        if let (true, Some(output)) = (is_open("output"), self.output) {
            arguments.output = output;
        }
        if is_open("who") {
            arguments.operator.who = self.who.or(arguments.operator.who.take());
        }
    }
}

impl Config {
    /// Reads a file. What it does not know is an error: a slip in a name would be silence.
    pub(crate) fn read(text: &str) -> Result<Self, Wrong> {
        let file = Source(text);
        let parsed = DeTable::parse(text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            file.wrong(&span, error.message().to_owned())
        })?;
        let mut config = Self::default();
        for (name, value) in parsed.get_ref() {
            match name.get_ref().as_ref() {
                "profile" => config.profile = Some(file.text("profile", value)?),
                "profiles" => config.profiles = file.profiles(value)?,
                _ => file.setting(&mut config.above, name, value)?,
            }
        }
        Ok(config)
    }

    /// Picks a profile: the one that is asked for, else the one that the file names.
    pub(crate) fn choose(mut self, asked: Option<&str>) -> Result<Settings, String> {
        let Some(name) = asked.map(str::to_owned).or(self.profile.take()) else {
            return Ok(self.above);
        };
        match self.profiles.remove(&name) {
            Some(profile) => Ok(profile.or(self.above)),
            None => {
                let known: Vec<_> = self.profiles.keys().map(String::as_str).collect();
                let known = match known.is_empty() {
                    true => "none".to_owned(),
                    false => known.join(", "),
                };
                let name = cut(&name, NAME_CHARS_MAX);
                Err(format!("has no profile `{name}`; it has: {known}"))
            }
        }
    }

    fn holds_password(&self) -> bool {
        let all = self.profiles.values().chain([&self.above]);
        let mut stores = all.filter_map(|one| one.store.as_deref());
        stores.any(holds_password)
    }
}

/// The text of a file, to find lines in.
struct Source<'a>(&'a str);

type Name<'a> = Spanned<toml::de::DeString<'a>>;
type Value<'a> = Spanned<DeValue<'a>>;

impl Source<'_> {
    fn wrong(&self, at: &Range<usize>, fact: String) -> Wrong {
        let before = self.0.as_bytes().iter().take(at.start);
        let line = 1 + before.filter(|byte| **byte == b'\n').count();
        Wrong { line, fact }
    }

    fn profiles(&self, value: &Value<'_>) -> Result<BTreeMap<String, Settings>, Wrong> {
        let mut profiles = BTreeMap::new();
        for (name, value) in self.table("profiles", value)? {
            let mut settings = Settings::default();
            for (key, value) in self.table("a profile", value)? {
                self.setting(&mut settings, key, value)?;
            }
            profiles.insert(name.get_ref().to_string(), settings);
        }
        Ok(profiles)
    }

    fn setting(
        &self,
        settings: &mut Settings,
        name: &Name<'_>,
        value: &Value<'_>,
    ) -> Result<(), Wrong> {
        match name.get_ref().as_ref() {
            "store" => settings.store = Some(self.text("store", value)?),
            "who" => settings.who = Some(self.text("who", value)?),
            "role" => {
                let known = Role::ALL.map(Role::as_str).join(", ");
                let word = self.text("role", value)?;
                let read = word.parse::<Role>().ok();
                settings.role = Some(self.one_of("role", read, &known, value)?);
            }
            "output" => {
                let word = self.text("output", value)?;
                let read = Form::from_str(&word, false).ok();
                settings.output =
                    Some(self.one_of("output", read, "table, json, ndjson", value)?);
            }
            other => {
                let fact = format!(
                    "nothing is called `{}` here; there are store, role, output and who, and at \
                     the top profile and profiles",
                    cut(other, NAME_CHARS_MAX)
                );
                return Err(self.wrong(&name.span(), fact));
            }
        }
        Ok(())
    }

    fn one_of<T>(
        &self,
        name: &str,
        read: Option<T>,
        known: &str,
        value: &Value<'_>,
    ) -> Result<T, Wrong> {
        read.ok_or_else(|| self.wrong(&value.span(), format!("`{name}` is one of {known}")))
    }

    fn text(&self, name: &str, value: &Value<'_>) -> Result<String, Wrong> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            _ => Err(self.wrong(&value.span(), format!("`{name}` is a text in quotes"))),
        }
    }

    fn table<'v, 'i>(
        &self,
        name: &str,
        value: &'v Spanned<DeValue<'i>>,
    ) -> Result<&'v DeTable<'i>, Wrong> {
        match value.get_ref() {
            DeValue::Table(table) => Ok(table),
            _ => Err(self.wrong(&value.span(), format!("{name} is a table: [profiles.NAME]"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "store = 'dev.db'\nwho = 'ada'\nprofile = 'dev'\n\n[profiles.dev]\n\
        output = 'json'\n[profiles.prod]\nstore = 'postgres://a:secret@b/c'\nrole = 'reader'\n";

    #[test]
    fn a_profile_comes_before_what_stands_above_it() {
        let config = || Config::read(FULL).unwrap();
        assert!(config().holds_password());
        let dev = config().choose(None).unwrap();
        assert_eq!(dev.store.as_deref(), Some("dev.db"));
        assert_eq!(dev.output, Some(Form::Json));
        let prod = config().choose(Some("prod")).unwrap();
        assert_eq!(prod.store.as_deref(), Some("postgres://a:secret@b/c"));
        assert_eq!(prod.who.as_deref(), Some("ada"));
        assert_eq!((prod.role, prod.output), (Some(Role::Reader), None));
        let refused = config().choose(Some("test")).unwrap_err();
        assert_eq!(refused, "has no profile `test`; it has: dev, prod");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_without_its_value() {
        let cases = [
            ("\nstor = 'x'", 2, "nothing is called `stor`"),
            ("store = 17", 1, "`store` is a text"),
            ("role = 'secret'", 1, "reader, body-reader, operator, admin"),
            ("\n\noutput = 'secret'", 3, "table, json, ndjson"),
            ("profiles = 'secret'", 1, "is a table"),
            ("[profiles]\ndev = 'secret'", 2, "is a table"),
            ("[profiles.dev]\nprofile = 'secret'", 2, "`profile`"),
            ("store = 'a'\nstore = 'secret'", 2, "duplicate key"),
            ("who = 'x'\nstore = 'secret", 2, ""),
        ];
        for (text, line, fact) in cases {
            let wrong = Config::read(text).unwrap_err();
            assert_eq!(wrong.line, line, "{text}: {wrong:?}");
            assert!(wrong.fact.contains(fact), "{text}: {wrong:?}");
            assert!(!wrong.fact.contains("secret"), "{text}: {wrong:?}");
        }
    }
}
