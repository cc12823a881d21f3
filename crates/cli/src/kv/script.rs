//! Transactions as text, in the form that users of etcd's tool write them.

use std::io::{BufRead, IsTerminal};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use onefold_kv::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, LeaseId, Operation,
    OperationResponse, PutRequest, RangeRequest, TxnRequest, TxnResponse,
};

use super::text::Record;
use crate::output::{Format, print_json};

/// Reads a script: all of a file, or of standard input up to the end of its third part. A person at a
/// terminal is told which part is next.
pub fn read(file: Option<&Path>) -> anyhow::Result<String> {
    if let Some(file) = file {
        return std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()));
    }
    let stdin = std::io::stdin();
    let is_terminal = stdin.is_terminal();
    let mut text = String::new();
    for part in ["conditions:", "if they hold (get, put, del):", "if not (get, put, del):"] {
        if is_terminal {
            eprintln!("{part}");
        }
        loop {
            let mut line = String::new();
            let bytes = stdin.lock().read_line(&mut line).context("cannot read standard input")?;
            text.push_str(&line);
            if bytes == 0 || line.trim().is_empty() {
                break;
            }
        }
    }
    Ok(text)
}

/// Reads conditions, operations if they hold, and operations if not; an empty line ends each part.
pub fn parse(text: &str) -> anyhow::Result<TxnRequest> {
    let mut lines = text.lines().map(str::trim);
    let compare = part(&mut lines).map(parse_compare).collect::<anyhow::Result<_>>()?;
    let success = part(&mut lines).map(parse_operation).collect::<anyhow::Result<_>>()?;
    let failure = part(&mut lines).map(parse_operation).collect::<anyhow::Result<_>>()?;
    Ok(TxnRequest { compare, success, failure })
}

/// The lines up to the next empty one.
fn part<'t>(lines: &mut impl Iterator<Item = &'t str>) -> impl Iterator<Item = &'t str> {
    lines.take_while(|line| !line.is_empty())
}

/// `target("key") result "operand"`.
fn parse_compare(line: &str) -> anyhow::Result<Compare> {
    let shape = || format!("{line:?} is no condition; write for example: value(\"key\") = \"v\"");
    let (target, rest) = line.split_once('(').with_context(shape)?;
    let (key, rest) = rest.rsplit_once(')').with_context(shape)?;
    let rest = rest.trim();
    let end = rest.find(|c: char| !"=!<>".contains(c)).with_context(shape)?;
    let (result, operand) = rest.split_at(end);
    let result = match result {
        "=" | "==" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        "<" => CompareResult::Less,
        ">" => CompareResult::Greater,
        _ => bail!(shape()),
    };
    let key = one_word(key).with_context(shape)?;
    let operand = one_word(operand).with_context(shape)?;
    let number = || operand.parse::<i64>().with_context(|| format!("{operand:?} is no number"));
    let target = match target.trim() {
        "value" | "val" => CompareTarget::Value(operand.clone().into()),
        "version" | "ver" => CompareTarget::Version(number()?),
        "create" | "c" => CompareTarget::CreateRevision(number()?),
        "mod" | "m" => CompareTarget::ModRevision(number()?),
        "lease" => CompareTarget::Lease(LeaseId(i64::from_str_radix(&operand, 16)?)),
        other => bail!("{other:?} cannot be compared; there are value, ver, create, mod, lease"),
    };
    Ok(Compare::new(key, result, target))
}

fn parse_operation(line: &str) -> anyhow::Result<Operation> {
    let mut words = split_words(line)?;
    let prefix = words.iter().position(|word| word == "--prefix");
    if let Some(place) = prefix {
        words.remove(place);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let bytes = |word: &str| Bytes::copy_from_slice(word.as_bytes());
    Ok(match words[..] {
        ["put", key, value] => Operation::Put(PutRequest::new(bytes(key), bytes(value))),
        ["get", key] if prefix.is_some() => Operation::Range(RangeRequest::prefix(bytes(key))),
        ["get", key] => Operation::Range(RangeRequest::key(bytes(key))),
        ["del", key] if prefix.is_some() => {
            Operation::DeleteRange(DeleteRangeRequest::prefix(bytes(key)))
        }
        ["del", key] => Operation::DeleteRange(DeleteRangeRequest::key(bytes(key))),
        _ => bail!("{line:?} is no operation; there are: put KEY VALUE, get KEY, del KEY"),
    })
}

fn one_word(text: &str) -> anyhow::Result<String> {
    let mut words = split_words(text)?;
    ensure!(words.len() == 1, "{text:?} is not one word; put it in quotes");
    Ok(words.remove(0))
}

/// Words separated by blanks; in double quotes a word may have blanks, and `\` takes the next
/// character as it is.
fn split_words(line: &str) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut characters = line.chars().peekable();
    while let Some(&first) = characters.peek() {
        if first.is_whitespace() {
            characters.next();
            continue;
        }
        let mut word = String::new();
        let mut quoted = false;
        while let Some(&next) = characters.peek() {
            if next.is_whitespace() && !quoted {
                break;
            }
            characters.next();
            match next {
                '"' => quoted = !quoted,
                '\\' => word.push(characters.next().context("a \\ at the end of a line")?),
                other => word.push(other),
            }
        }
        ensure!(!quoted, "a quote in {line:?} is not closed");
        words.push(word);
    }
    Ok(words)
}

/// Prints what a transaction did.
pub fn print(answer: &TxnResponse, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        let responses: Vec<_> = answer.responses.iter().map(to_json).collect();
        return print_json(&serde_json::json!({
            "succeeded": answer.succeeded,
            "revision": answer.header.revision,
            "responses": responses,
        }));
    }
    println!("{}", if answer.succeeded { "SUCCESS" } else { "FAILURE" });
    for response in &answer.responses {
        println!();
        match response {
            OperationResponse::Put(_) => println!("OK"),
            OperationResponse::DeleteRange(done) => println!("{}", done.deleted),
            OperationResponse::Range(found) => {
                for kv in &found.kvs {
                    Record::from(kv.clone()).print(false, false)?;
                }
            }
            OperationResponse::Txn(inner) => print(inner, format)?,
        }
    }
    Ok(())
}

fn to_json(response: &OperationResponse) -> serde_json::Value {
    match response {
        OperationResponse::Put(_) => serde_json::json!({ "put": {} }),
        OperationResponse::DeleteRange(done) => serde_json::json!({ "deleted": done.deleted }),
        OperationResponse::Range(found) => {
            let records: Vec<Record> = found.kvs.iter().cloned().map(Record::from).collect();
            serde_json::json!({ "kvs": records })
        }
        OperationResponse::Txn(inner) => {
            let responses: Vec<_> = inner.responses.iter().map(to_json).collect();
            serde_json::json!({ "succeeded": inner.succeeded, "responses": responses })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_script_has_conditions_and_two_branches() {
        let script =
            "value(\"k\") = \"a b\"\nmod(k) > 0\n\nput k \"c d\"\nget x --prefix\n\ndel k\n";
        let txn = parse(script).unwrap();
        assert_eq!(txn.compare.len(), 2);
        assert_eq!(txn.compare[0].target, CompareTarget::Value("a b".into()));
        assert_eq!(txn.compare[1].result, CompareResult::Greater);
        assert_eq!(txn.success[0], Operation::Put(PutRequest::new("k", "c d")));
        assert_eq!(txn.success[1], Operation::Range(RangeRequest::prefix("x")));
        assert_eq!(txn.failure, [Operation::DeleteRange(DeleteRangeRequest::key("k"))]);
    }

    #[test]
    fn a_script_without_conditions_begins_with_an_empty_line() {
        let txn = parse("\nput k v\n\ndel k\n\n").unwrap();
        assert_eq!((txn.compare.len(), txn.success.len(), txn.failure.len()), (0, 1, 1));
    }

    #[test]
    fn what_is_no_condition_or_operation_is_refused() {
        for script in ["value(k) ~ 1", "value k = 1", "soul(k) = 1", "mod(k) = x", "value(\"k) = 1"]
        {
            assert!(parse(script).is_err(), "{script}");
        }
        for operation in ["put k", "grow k", "put k \"v"] {
            assert!(parse(&format!("\n\n{operation}")).is_err(), "{operation}");
        }
    }
}
