//! Prints the table of the suite: `cargo run --release -p millrace-simulator --example suite -- [PART OF A NAME]`.

use simulator::{load, suite};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let part = std::env::args().nth(1).unwrap_or_default();
    let loads: Vec<_> = load::library(1).into_iter().filter(|load| load.name.contains(&part)).collect();
    let rows = suite::run(&loads, true, &|name| eprintln!("{name}"))?;
    println!("{}\n{}", suite::table(&rows)?, suite::Summary::new(&rows));
    Ok(())
}
