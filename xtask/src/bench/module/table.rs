//! The table of costs.

use super::column::{COLUMNS, SERVERS};
use super::load::{Load, Run};
use super::operations::Operation;
use serde::Serialize;
use std::collections::BTreeMap;

/// Figures by column's name.
type ByColumn = BTreeMap<&'static str, f64>;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(super) rounds: usize,
    pub(super) rows: Vec<Row>,
    pub(super) operations: Vec<Operation>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: &'static str,
    unit: &'static str,
    /// What is compared: of a load that runs for a time, what all runs did.
    operations: f64,
    /// Medians.
    per_second: ByColumn,
    /// Of the first column: medians of the ratios within one round.
    ratio: ByColumn,
    /// Lowest and highest of those ratios: what noise there is.
    ratio_range: BTreeMap<&'static str, [f64; 2]>,
    /// By server, processor time for one operation: medians.
    processor_microseconds: BTreeMap<&'static str, ByColumn>,
}

impl Row {
    /// `runs`: for each column its rounds.
    pub(super) fn new(load: &Load, runs: &[Vec<Run>]) -> Self {
        let work = runs.iter().flatten().map(Run::done).fold(f64::INFINITY, f64::min);
        let rates: Vec<Vec<f64>> = runs
            .iter()
            .map(|runs| runs.iter().map(|run| work / run.time_to(work)).collect())
            .collect();
        let first = rates.first().cloned().unwrap_or_default();
        let mut row = Self {
            name: load.name(),
            unit: load.unit(),
            operations: work,
            per_second: ByColumn::new(),
            ratio: ByColumn::new(),
            ratio_range: BTreeMap::new(),
            processor_microseconds: BTreeMap::new(),
        };
        for ((column, runs), rates) in COLUMNS.iter().zip(runs).zip(&rates) {
            let ratios: Vec<f64> = rates
                .iter()
                .zip(&first)
                .map(|(rate, first)| rate / first)
                .collect();
            let range = ratios.iter().fold([f64::INFINITY, 0.0], |[low, high], ratio| {
                [low.min(*ratio), ratio.max(high)]
            });
            row.per_second.insert(column.name, median(rates));
            row.ratio.insert(column.name, median(&ratios));
            row.ratio_range.insert(column.name, range);
            for (index, server) in SERVERS.into_iter().enumerate() {
                let used: Vec<f64> = runs
                    .iter()
                    .map(|run| run.processor[index] / run.done() * 1e6)
                    .collect();
                row.processor_microseconds
                    .entry(server)
                    .or_default()
                    .insert(column.name, median(&used));
            }
        }
        row
    }

    /// For who watches.
    pub(super) fn line(&self) -> String {
        let ratios = COLUMNS
            .iter()
            .skip(1)
            .map(|column| format!("{} {:.3}", column.name, value(&self.ratio, column.name)));
        format!("{}: {}", self.name, ratios.collect::<Vec<_>>().join(", "))
    }
}

impl Report {
    pub(super) fn print(&self) {
        if !self.rows.is_empty() {
            self.print_rows();
        }
        if !self.operations.is_empty() {
            self.print_operations();
        }
    }

    fn print_rows(&self) {
        let peers = || COLUMNS.iter().skip(1);
        println!(
            "\nShares side by side: medians of {} rounds; ratios within a round (lowest to highest)",
            self.rounds
        );
        print!("{:<44}", "");
        COLUMNS.iter().for_each(|column| print!(" {:>12}", column.name));
        peers().for_each(|column| print!(" {:>26}", format!("{} / {}", column.name, COLUMNS[0].name)));
        println!();
        for row in &self.rows {
            print!("{:>7.0} {:<23} {:<12}", row.operations, row.name, row.unit);
            COLUMNS
                .iter()
                .for_each(|column| print!(" {:>12.1}", value(&row.per_second, column.name)));
            for column in peers() {
                let [low, high] = row.ratio_range.get(column.name).copied().unwrap_or([f64::NAN; 2]);
                print!(
                    " {:>26}",
                    format!("{:.3} ({low:.3} to {high:.3})", value(&row.ratio, column.name))
                );
            }
            println!();
        }
        for server in SERVERS {
            println!("\nProcessor time of {server} for one operation, microseconds");
            for row in &self.rows {
                if let Some(values) = row.processor_microseconds.get(server) {
                    line(row.name, values, 1);
                }
            }
        }
    }

    fn print_operations(&self) {
        println!("\nInstructions of smbd for one operation, user space");
        for operation in &self.operations {
            line(operation.name, &operation.instructions, 0);
        }
        println!("\nSystem calls of smbd for one operation");
        for operation in &self.operations {
            line(operation.name, &operation.system_calls, 2);
        }
    }
}

/// Values of all columns, then what each adds to the first.
fn line(name: &str, values: &ByColumn, decimals: usize) {
    print!("{name:<44}");
    COLUMNS
        .iter()
        .for_each(|column| print!(" {:>12.decimals$}", value(values, column.name)));
    for column in COLUMNS.iter().skip(1) {
        let more = value(values, column.name) - value(values, COLUMNS[0].name);
        print!(" {:>26}", format!("{more:+.decimals$}"));
    }
    println!();
}

fn value(values: &ByColumn, column: &str) -> f64 {
    values.get(column).copied().unwrap_or(f64::NAN)
}

/// Of an even number the mean of the two in the middle; 0 of none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (Some(low), Some(high)) = (
        sorted.get(sorted.len().saturating_sub(1) / 2),
        sorted.get(sorted.len() / 2),
    ) else {
        return 0.0;
    };
    (low + high) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_round_moves_no_median() {
        assert_eq!(median(&[5.0, 1.0, 100.0]), 5.0);
        assert_eq!(median(&[4.0, 2.0]), 3.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn rates_are_for_the_work_that_all_runs_did() {
        let run = |points: &[(f64, f64)]| Run {
            points: points.to_vec(),
            processor: [0.5; 3],
            in_mode_map: None,
        };
        let load = Load::Nbench {
            name: "n",
            seconds: 2,
        };
        // The second column does half as much in the same time; only the first second of the first column counts.
        let runs = [
            vec![run(&[(1.0, 100.0), (2.0, 110.0)])],
            vec![run(&[(1.0, 50.0), (2.0, 100.0)])],
        ];
        let row = Row::new(&load, &runs);
        let ratio = row.ratio.get(COLUMNS[1].name).copied();
        assert_eq!(ratio, Some(0.5));
    }
}
