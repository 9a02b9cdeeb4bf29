//! Reads the rows of each format.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::table::{Column, Row, Table};
use super::{ReadError, TraceBuilder};

const SECOND: i128 = 1_000_000_000;
const MINUTE: i128 = 60 * SECOND;

pub(super) fn own(table: &mut Table, builder: &mut TraceBuilder<'_>) -> Result<(), ReadError> {
    let (time, pool, work) = (table.column("time")?, table.find("pool"), table.find("work"));
    if builder.selection.pool.is_some() {
        table.column("pool")?;
    }
    if builder.selection.item_size.is_some() {
        table.column("work")?;
    }
    let mut is_in_seconds = None;
    table.rows(|row| {
        // All rows must have the kind of time of the first one, because the two kinds cannot be compared.
        let in_seconds = *is_in_seconds.get_or_insert_with(|| row.text(time).parse::<f64>().is_ok());
        let at = if in_seconds { row.seconds(time)? } else { row.timestamp(time)? };
        let measured = work.filter(|work| !row.text(*work).is_empty()).map(|work| row.number(work)).transpose()?;
        let size = builder.selection.item_size.unwrap_or(1.0);
        let is_selected = builder.selects(&[pool.map_or("", |pool| row.text(pool))]);
        builder.add(row, at, measured.map_or(1.0, |measured| measured / size), is_selected)
    })?;
    if is_in_seconds == Some(true) {
        builder.begin = Some(0);
    }
    Ok(())
}

pub(super) fn azure_functions_2019(table: &mut Table, builder: &mut TraceBuilder<'_>) -> Result<(), ReadError> {
    let (app, function) = (table.column("HashApp")?, table.column("HashFunction")?);
    table.column("1")?;
    let minutes = table.numbered();
    if builder.selection.item_size.is_some() {
        return Err(table.unfit("counts invocations and measures nothing of them, so item_size has no meaning"));
    }
    let mut random = StdRng::seed_from_u64(builder.selection.seed);
    builder.begin = Some(0);
    builder.end = Some(minutes.len() as i128 * MINUTE);
    table.rows(|row| {
        if !builder.selects(&[row.text(app), row.text(function)]) {
            return Ok(());
        }
        for (index, minute) in minutes.iter().enumerate() {
            let count: u32 =
                row.text(*minute).parse().map_err(|_| row.invalid(*minute, "is not a whole number of at least 0"))?;
            builder.check_jobs(row, count as usize)?;
            for _ in 0..count {
                let within = (random.random::<f64>() * MINUTE as f64) as i128;
                builder.add(row, index as i128 * MINUTE + within, 1.0, true)?;
            }
        }
        Ok(())
    })
}

pub(super) fn azure_functions_2021(table: &mut Table, builder: &mut TraceBuilder<'_>) -> Result<(), ReadError> {
    let (app, function) = (table.column("app")?, table.column("func")?);
    let (end, duration) = (table.column("end_timestamp")?, table.column("duration")?);
    table.rows(|row| {
        let (end, lasts) = (row.seconds(end)?, row.seconds(duration)?);
        let is_selected = builder.selects(&[row.text(app), row.text(function)]);
        builder.add(row, end - lasts, builder.items(lasts as f64 / SECOND as f64), is_selected)
    })
}

pub(super) fn azure_llm(table: &mut Table, builder: &mut TraceBuilder<'_>) -> Result<(), ReadError> {
    let time = table.column("TIMESTAMP")?;
    let tokens = [table.column("ContextTokens")?, table.column("GeneratedTokens")?];
    if builder.selection.pool.is_some() {
        return Err(table.unfit("names no models, so pool has no meaning"));
    }
    table.rows(|row| {
        let (at, tokens) = (row.timestamp(time)?, sum(row, tokens)?);
        builder.add(row, at, builder.items(tokens), true)
    })
}

pub(super) fn burst_gpt(table: &mut Table, builder: &mut TraceBuilder<'_>) -> Result<(), ReadError> {
    let (time, model) = (table.column("Timestamp")?, table.column("Model")?);
    let tokens = [table.column("Request tokens")?, table.column("Response tokens")?];
    table.rows(|row| {
        let (at, tokens) = (row.seconds(time)?, sum(row, tokens)?);
        builder.add(row, at, builder.items(tokens), builder.selects(&[row.text(model)]))
    })
}

fn sum(row: &Row<'_>, columns: [Column; 2]) -> Result<f64, ReadError> {
    let [one, other] = columns;
    Ok(row.number(one)? + row.number(other)?)
}
