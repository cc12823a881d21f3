//! `onefold kv get`.

use anyhow::bail;
use clap::{Args, ValueEnum};
use onefold_kv::{Kv, RangeRequest, SortOrder, SortTarget};
use onefold_types::Revision;

use super::Span;
use super::text::Record;
use crate::output::{Format, print_json};

/// What to read and how to show it.
#[derive(Args)]
pub struct GetArgs {
    #[command(flatten)]
    span: Span,
    /// Print values only.
    #[arg(long)]
    print_value_only: bool,
    /// Print keys only.
    #[arg(long, conflicts_with = "print_value_only")]
    keys_only: bool,
    /// Print only how many keys there are.
    #[arg(long)]
    count_only: bool,
    /// At most so many keys; 0 for all.
    #[arg(long, default_value_t = 0)]
    limit: u64,
    /// As they were at this revision.
    #[arg(long, default_value_t = 0)]
    rev: u64,
    /// Sort by this.
    #[arg(long, value_enum, ignore_case = true, default_value_t)]
    sort_by: SortBy,
    /// Smallest first, or largest.
    #[arg(long, value_enum, ignore_case = true)]
    order: Option<Order>,
    /// Largest first; the same as --order descend.
    #[arg(long, conflicts_with = "order")]
    descending: bool,
    /// The latest of all (l), or what the nearest replica has (s).
    #[arg(long, value_enum, ignore_case = true, default_value_t)]
    consistency: Consistency,
    /// The same as --consistency s.
    #[arg(long)]
    serializable: bool,
}

/// What answers are sorted by.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum SortBy {
    #[default]
    Key,
    Version,
    Create,
    #[value(alias = "modify")]
    Mod,
    Value,
}

#[derive(Clone, Copy, ValueEnum)]
enum Order {
    Ascend,
    Descend,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Consistency {
    #[default]
    #[value(name = "l", alias = "linearizable")]
    Linearizable,
    #[value(name = "s", alias = "serializable")]
    Serializable,
}

impl GetArgs {
    fn request(&self) -> anyhow::Result<RangeRequest> {
        let (key, range_end) = self.span.parts()?;
        Ok(RangeRequest {
            key,
            range_end,
            limit: self.limit,
            revision: Revision(self.rev),
            sort_order: match self.order {
                _ if self.descending => SortOrder::Descend,
                Some(Order::Descend) => SortOrder::Descend,
                Some(Order::Ascend) => SortOrder::Ascend,
                None => SortOrder::None,
            },
            sort_target: match self.sort_by {
                SortBy::Key => SortTarget::Key,
                SortBy::Version => SortTarget::Version,
                SortBy::Create => SortTarget::Create,
                SortBy::Mod => SortTarget::Mod,
                SortBy::Value => SortTarget::Value,
            },
            serializable: self.serializable || self.consistency == Consistency::Serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            ..RangeRequest::default()
        })
    }
}

/// Runs the verb.
pub async fn run(kv: &dyn Kv, arguments: GetArgs, format: Format) -> anyhow::Result<()> {
    let answer = kv.range(arguments.request()?).await?;
    if arguments.count_only {
        match format {
            Format::Json => print_json(&serde_json::json!({ "count": answer.count }))?,
            Format::Table => println!("{}", answer.count),
        }
        return Ok(());
    }
    if arguments.span.is_one() && answer.kvs.is_empty() {
        bail!("there is no key {:?}", arguments.span.key);
    }
    let records: Vec<Record> = answer.kvs.into_iter().map(Record::from).collect();
    if format == Format::Json {
        return print_json(&records);
    }
    for record in &records {
        record.print(arguments.keys_only, arguments.print_value_only)?;
    }
    Ok(())
}
