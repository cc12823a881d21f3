//! Defaults for flags from a TOML file.
//!
//! A table of the file is named like a verb and holds long flag names. Its entries become flags in
//! front of the ones that were typed, so a typed flag wins; an environment variable wins over the
//! file as well.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};
use toml::Value;

/// The arguments with the file's flags put in behind the verb.
pub fn expand(arguments: Vec<OsString>, command: &clap::Command) -> anyhow::Result<Vec<OsString>> {
    let Some(path) = config_path(&arguments) else { return Ok(arguments) };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read the configuration file {name}"))?;
    let tables: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| anyhow::anyhow!("{name}: {}", error.message()))?;
    let Some((place, verb)) = verb(&arguments, command) else { return Ok(arguments) };
    for table in tables.keys() {
        if command.find_subcommand(table).is_none() {
            bail!("{name}: there is no verb {table:?}; tables are named like verbs, as in [start]");
        }
    }
    let Some(Value::Table(flags)) = tables.get(verb.get_name()) else { return Ok(arguments) };
    let mut expanded = arguments;
    for (flag, value) in flags {
        let known = verb.get_arguments().find(|known| known.get_long() == Some(flag));
        let Some(known) = known else {
            bail!("{name}: `onefold {}` has no flag --{flag}", verb.get_name());
        };
        if known.get_env().is_some_and(|variable| std::env::var_os(variable).is_some()) {
            continue;
        }
        for argument in flag_arguments(flag, value, &name)?.into_iter().rev() {
            expanded.insert(place + 1, argument.into());
        }
    }
    Ok(expanded)
}

fn flag_arguments(flag: &str, value: &Value, file: &str) -> anyhow::Result<Vec<String>> {
    let text = match value {
        Value::Boolean(true) => return Ok(vec![format!("--{flag}")]),
        Value::Boolean(false) => return Ok(Vec::new()),
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Array(items) => {
            let items: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
            let items = items.with_context(|| format!("{file}: {flag} is a list of texts"))?;
            items.join(",")
        }
        _ => bail!("{file}: {flag} must be a text, a number, true, false or a list of texts"),
    };
    Ok(vec![format!("--{flag}={text}")])
}

/// The file named by `--config` or `ONEFOLD_CONFIG`.
fn config_path(arguments: &[OsString]) -> Option<PathBuf> {
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        if argument == "--config" {
            return rest.next().map(PathBuf::from);
        }
        if argument == "--" {
            break;
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix("--config=")) {
            return Some(PathBuf::from(path));
        }
    }
    std::env::var_os("ONEFOLD_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The place of the first verb among the arguments.
fn verb<'a>(
    arguments: &[OsString],
    command: &'a clap::Command,
) -> Option<(usize, &'a clap::Command)> {
    arguments
        .iter()
        .enumerate()
        .skip(1)
        .find_map(|(place, argument)| command.find_subcommand(argument).map(|verb| (place, verb)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::{Arg, Command};

    use super::*;

    fn expand_with(file: &str, typed: &[&str]) -> anyhow::Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("onefold.toml");
        std::fs::write(&path, file).unwrap();
        let start = Command::new("start").arg(Arg::new("listen").long("listen"));
        let command = Command::new("onefold").subcommand(start);
        let mut arguments: Vec<OsString> = vec!["onefold".into(), "--config".into(), path.into()];
        arguments.extend(typed.iter().map(OsString::from));
        let expanded = expand(arguments, &command)?;
        Ok(expanded[3..].iter().map(|a| a.to_string_lossy().into_owned()).collect())
    }

    #[test]
    fn flags_of_the_file_come_before_typed_ones() {
        let expanded =
            expand_with("[start]\nlisten = \"a:1\"", &["start", "--listen", "b:2"]).unwrap();
        assert_eq!(expanded, ["start", "--listen=a:1", "--listen", "b:2"]);
    }

    #[test]
    fn unknown_verbs_and_flags_are_refused_by_name() {
        let error = expand_with("[begin]\nlisten = \"a:1\"", &["start"]).unwrap_err();
        assert!(error.to_string().contains("begin"), "{error}");
        let error = expand_with("[start]\nears = \"a:1\"", &["start"]).unwrap_err();
        assert!(error.to_string().contains("--ears"), "{error}");
    }
}
