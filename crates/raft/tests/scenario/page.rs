//! Takes a page apart, runs its steps and puts it together again.

use super::{step, world::World};

const BLOCK_OPENS: &str = "```raft";
const BLOCK_CLOSES: &str = "```";

/// The page as it reads when its steps are carried out.
///
/// # Errors
/// The line and the reason of a step that cannot be carried out, or of an expectation that fails.
pub(crate) fn run_page(page: &str) -> Result<String, String> {
    let mut world = World::default();
    let mut happened = String::new();
    let mut is_in_block = false;
    let mut steps = 0;
    for (number, line) in (1..).zip(page.lines()) {
        let mut keep = |line: &str| {
            happened.push_str(line);
            happened.push('\n');
        };
        if !is_in_block || line == BLOCK_CLOSES || line.is_empty() || line.starts_with('#') {
            is_in_block = if is_in_block { line != BLOCK_CLOSES } else { line == BLOCK_OPENS };
            keep(line);
        } else if let Some(text) = line.strip_prefix("> ") {
            keep(line);
            steps += 1;
            let done = step::run(&mut world, text).and_then(|()| world.check_safety());
            world.take_report().iter().for_each(|line| keep(&format!("  {line}")));
            done.map_err(|error| format!("line {number}: {error}; before:\n{}", tail(&happened)))?;
        }
    }
    if is_in_block {
        return Err("the last block of steps is not closed".into());
    }
    if steps == 0 {
        return Err("the page has no steps".into());
    }
    Ok(happened)
}

/// Lines that are shown before a step that fails.
const TAIL_LINES: usize = 12;

fn tail(happened: &str) -> String {
    let lines: Vec<&str> = happened.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

/// Lines around a difference that are shown.
const CONTEXT_LINES: usize = 3;

/// The lines that differ, with a few around them, by the longest common subsequence.
pub(crate) fn difference(written: &str, happened: &str) -> String {
    let old: Vec<&str> = written.lines().collect();
    let new: Vec<&str> = happened.lines().collect();
    // common[i][j]: how many lines old[i..] and new[j..] have in common, in order.
    let mut common = vec![vec![0usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let mut lines = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', old[i]));
            i += 1;
        } else {
            lines.push(('+', new[j]));
            j += 1;
        }
    }
    let is_near_change = |at: usize| {
        let near = at.saturating_sub(CONTEXT_LINES)..lines.len().min(at + CONTEXT_LINES + 1);
        lines[near].iter().any(|(sign, _)| *sign != ' ')
    };
    let shown = (0..lines.len()).filter(|&at| is_near_change(at));
    shown.map(|at| format!("{} {}\n", lines[at].0, lines[at].1)).collect()
}
