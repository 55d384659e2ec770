//! What a measurement returns: a table of numbers and its plot.

use serde_json::{Map, Value, json};
use std::error::Error;
use std::path::{Path, PathBuf};

/// The upper limits of counts: measurement -> row -> column -> limit.
#[cfg(test)]
const LIMITS: &str = include_str!("../limits.json");

/// A table of numbers and its plot.
pub(crate) struct Report {
    /// The titles of the columns.
    pub(crate) columns: &'static [&'static str],
    /// The name of each row and its numbers.
    pub(crate) rows: Vec<(String, Vec<f64>)>,
    /// The file in docs/ and its SVG; `None` if this run measured too little for it.
    pub(crate) plot: Option<(&'static str, String)>,
}

impl Report {
    /// Prints the table.
    pub(crate) fn print(&self, name: &str) {
        let width = self.rows.iter().map(|(row, _)| row.len()).max().unwrap_or(0).max(name.len());
        let titles: String = self.columns.iter().map(|column| format!("  {column:>12}")).collect();
        println!("{name:width$}{titles}");
        for (row, numbers) in &self.rows {
            let numbers: String = numbers.iter().map(|number| format!("  {number:>12.2}")).collect();
            println!("{row:width$}{numbers}");
        }
        println!();
    }

    /// Writes the numbers to `target/bench/`.
    pub(crate) fn write_json(&self, name: &str) -> Result<(), Box<dyn Error>> {
        let row = |(row, numbers): &(String, Vec<f64>)| {
            let numbers =
                self.columns.iter().zip(numbers).map(|(column, number)| ((*column).to_owned(), json!(number)));
            (row.clone(), Value::Object(numbers.collect::<Map<_, _>>()))
        };
        let rows: Map<String, Value> = self.rows.iter().map(row).collect();
        let directory = target().join("bench");
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join(name).with_extension("json"), format!("{:#}\n", Value::Object(rows)))?;
        Ok(())
    }

    /// Draws the plot into docs/.
    pub(crate) fn draw(&self) -> Result<(), Box<dyn Error>> {
        let Some((file, svg)) = &self.plot else { return Ok(()) };
        Ok(std::fs::write(root().join("docs").join(file), svg)?)
    }

    /// The counts that exceed their limits, and the limits without a count.
    #[cfg(test)]
    pub(crate) fn violations(&self, name: &str) -> Vec<String> {
        let limits: Value = serde_json::from_str(LIMITS).unwrap();
        let limits = limits[name].as_object().unwrap();
        let of_row = |(row, limits): (&String, &Value)| {
            let numbers = &self.rows.iter().find(|(name, _)| name == row).unwrap_or_else(|| panic!("no row {row}")).1;
            let of_column = |(column, limit): (&String, &Value)| {
                let at = self.columns.iter().position(|name| name == column).unwrap();
                let (number, limit) = (numbers[at], limit.as_f64().unwrap());
                (number > limit).then(|| format!("{row}, {column}: {number} > {limit}"))
            };
            limits.as_object().unwrap().iter().filter_map(of_column).collect::<Vec<_>>()
        };
        limits.iter().flat_map(of_row).collect()
    }
}

/// Whether a measurement has limits.
#[cfg(test)]
pub(crate) fn has_limits(name: &str) -> bool {
    serde_json::from_str::<Value>(LIMITS).unwrap()[name].is_object()
}

/// The number as a float; counts are far below 2^52.
pub(crate) fn as_f64(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}
