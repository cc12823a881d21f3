//! `etcdctl` prints the same whether it asks Onefold or a real etcd.
//!
//! `etcdctl_same.txt` is given to it line by line, at both in turn. Its output, its complaints and its
//! exit codes must be equal once numbers that each server chooses for itself have got names.

use std::process::Output;

use crate::etcd_programs::{Etcd, Etcdctl};
use crate::local_cluster::{LocalCluster, free_base_port};

const SCRIPT: &str = include_str!("etcdctl_same.txt");

/// One line of the script.
struct Step {
    line: &'static str,
    arguments: Vec<String>,
    /// Goes to its standard input.
    input: String,
    /// It does not end by itself and is ended after so many lines.
    lines: Option<usize>,
    /// The name of the lease that it grants.
    lease: Option<String>,
}

fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in SCRIPT.lines() {
        if let Some(input) = line.strip_prefix('|') {
            let step = steps.last_mut().expect("a command comes first");
            step.input.push_str(input.strip_prefix(' ').unwrap_or(input));
            step.input.push('\n');
        } else if !line.is_empty() && !line.starts_with('#') {
            steps.push(Step::parse(line));
        }
    }
    assert!(steps.len() > 100, "the script is there");
    steps
}

impl Step {
    fn parse(line: &'static str) -> Self {
        let (lines, command) = match line.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
            Some((count, command)) => (Some(count.parse().expect("a count")), command),
            None => (None, line),
        };
        let mut arguments = words(command);
        let grants = arguments.starts_with(&["lease".to_owned(), "grant".to_owned()]);
        let is_named = arguments.last().is_some_and(|last| last.starts_with('$'));
        let lease = if grants && is_named { arguments.pop() } else { None };
        Self { line, arguments, input: String::new(), lines, lease }
    }
}

/// The words of a line; blanks within single quotes do not divide.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut is_quoted, mut is_begun) = (String::new(), false, false);
    for letter in line.chars() {
        match letter {
            '\'' => (is_quoted, is_begun) = (!is_quoted, true),
            ' ' if !is_quoted => {
                if is_begun {
                    words.push(std::mem::take(&mut word));
                }
                is_begun = false;
            }
            _ => {
                word.push(letter);
                is_begun = true;
            }
        }
    }
    if is_begun {
        words.push(word);
    }
    words
}

/// A server and what its numbers are called.
struct Side {
    etcdctl: Etcdctl,
    /// Names of leases, and their ids in hexadecimal digits.
    leases: Vec<(String, String)>,
}

impl Side {
    fn new(etcdctl: Etcdctl) -> Self {
        Self { etcdctl, leases: Vec::new() }
    }

    /// What a step prints, complains of and ends with.
    fn run(&mut self, step: &Step) -> (String, String, Option<i32>) {
        let named = |argument: &String| {
            let lease = self.leases.iter().find(|(name, _)| name == argument);
            lease.map_or(argument, |(_, id)| id).clone()
        };
        let arguments: Vec<String> = step.arguments.iter().map(named).collect();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if let Some(lines) = step.lines {
            let seen = self.etcdctl.take(&arguments, &step.input, lines).join("\n");
            return (self.named(&seen), String::new(), None);
        }
        let Output { status, stdout, stderr } = self.etcdctl.feed(&arguments, &step.input);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (printed, complained) = (text(&stdout), text(&stderr));
        if let Some(name) = &step.lease {
            self.leases.push((name.clone(), lease_id(&printed)));
        }
        (self.named(&printed), self.named(&complained), status.code())
    }

    /// A text with names for what differs from server to server.
    fn named(&self, text: &str) -> String {
        let mut text = text.replace(self.etcdctl.endpoints(), "SERVER");
        for (name, id) in &self.leases {
            let number = i64::from_str_radix(id, 16).expect("an id");
            text = text.replace(id, name).replace(&number.to_string(), name);
        }
        let kept = text.lines().filter(|line| !line.starts_with("{\"level\""));
        kept.map(without_numbers).collect::<Vec<_>>().join("\n")
    }
}

/// The id that `lease grant` printed.
fn lease_id(printed: &str) -> String {
    let word = printed.strip_prefix("lease ").and_then(|rest| rest.split(' ').next());
    let digits = |after: &str| {
        let rest = printed.split_once(after)?.1.trim_start_matches([' ', ':']);
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        Some(format!("{:x}", number.parse::<i64>().ok()?))
    };
    let id = word.map(str::to_owned).or_else(|| digits("\"ID\""));
    id.unwrap_or_else(|| panic!("no lease in {printed}"))
}

/// Names of numbers that a server chooses or measures.
const NUMBERS: [&str; 12] = [
    "\"cluster_id\":",
    "\"member_id\":",
    "\"raft_term\":",
    "\"ClusterID\" : ",
    "\"MemberID\" : ",
    "\"RaftTerm\" : ",
    "\"ttl\":",
    "\"TTL\" : ",
    "remaining(",
    "took = ",
    "\"lease\":",
    "lease ",
];

/// A line without the numbers that follow those names, and without what a lock or an election calls
/// its key, which is the lease of its session.
fn without_numbers(line: &str) -> String {
    let mut line = line.to_owned();
    for name in NUMBERS {
        let Some(begin) = line.find(name).map(|at| at + name.len()) else { continue };
        let is_digit = |c: char| c.is_ascii_hexdigit() || c == '.';
        let end = line[begin..].find(|c| !is_digit(c)).map_or(line.len(), |length| begin + length);
        line.replace_range(begin..end, "N");
    }
    match line.rsplit_once('/') {
        Some((name, id)) if id.len() >= 15 && id.chars().all(|c| c.is_ascii_hexdigit()) => {
            format!("{name}/SESSION")
        }
        _ => line,
    }
}

#[test]
fn prints_the_same_at_onefold_and_at_etcd() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let Some(etcd) = Etcd::start(&folder.path().join("etcd"), free_base_port()) else { return };
    let cluster = LocalCluster::start(folder.path(), 3);
    let mut theirs = Side::new(etcd.etcdctl.clone());
    let mut ours = Side::new(etcd.etcdctl.at(&cluster.nodes[0].etcd));
    let mut differences = Vec::new();
    for step in steps() {
        let (their, our) = (theirs.run(&step), ours.run(&step));
        if their != our {
            differences.push(format!("{}\n  etcd    {their:?}\n  onefold {our:?}", step.line));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    cluster.stop();
}
