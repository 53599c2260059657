//! `requiem bench compare`: two results beside one another, with what can be said of the true ratio.

use schemars::JsonSchema;
use serde::Serialize;

use crate::bench::comparison::{Change, Comparison, Figure, Side, compare};
use crate::bench::document::ResultDocument;
use crate::bench_arguments::Pair;
use crate::error::CommandError;
use crate::report::Report;
use crate::text::{count, micros, printable, table};

/// What came of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct Compared {
    ok: bool,
    #[serde(flatten)]
    comparison: Comparison,
}

/// Runs the command. Which of both is slower is no finding: that is for the gate to say.
pub(crate) fn run(pair: &Pair) -> Result<Report, CommandError> {
    let (base, new) = read(pair)?;
    let comparison = compare(&base, &new, pair.allowed())?;
    let text = text(&comparison);
    Ok(Report::new(&Compared { ok: true, comparison }, text, true))
}

/// Both results.
pub(super) fn read(pair: &Pair) -> Result<(ResultDocument, ResultDocument), CommandError> {
    Ok((ResultDocument::read(&pair.base)?, ResultDocument::read(&pair.new)?))
}

/// For people.
pub(super) fn text(comparison: &Comparison) -> String {
    let Comparison { base, new, concurrency, confidence_percent, environment_differences, figures, .. } =
        comparison;
    let side = |title: &str, side: &Side| {
        let runs = count(side.samples, "run", "runs");
        [
            title.to_owned(),
            printable(&side.name),
            format!("{runs}, {concurrency} at a time, {}", printable(&side.started_at)),
        ]
    };
    let interval = format!("RATIO, {confidence_percent} %");
    let head = [
        "wall time".to_owned(),
        "BASE".to_owned(),
        "NEW".to_owned(),
        "RATIO".to_owned(),
        interval,
        String::new(),
    ];
    let rows: Vec<[String; 6]> = [head].into_iter().chain(figures.iter().map(row)).collect();
    let differing = environment_differences.iter().map(|difference| format!("differs: {difference}\n"));
    let requests = if base.request_digest == new.request_digest {
        String::new()
    } else {
        format!("differs: request: {} and {}\n", base.request_digest, new.request_digest)
    };
    format!(
        "{}{requests}{}{}",
        table(&[side("BASE", base), side("NEW", new)]),
        differing.collect::<String>(),
        table(&rows)
    )
}

fn row(figure: &Figure) -> [String; 6] {
    let change = match figure.change {
        Change::Slower => "slower",
        Change::Faster => "faster",
        Change::Undecided => "no difference shown",
    };
    [
        figure.figure.to_owned(),
        micros(figure.base.us),
        micros(figure.new.us),
        format!("{:.3}", figure.ratio),
        format!("{:.3} to {:.3}", figure.ratio_low, figure.ratio_high),
        change.to_owned(),
    ]
}
