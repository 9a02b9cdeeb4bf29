use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

const EVERYTHING: Selection<'static> = Selection { pool: None, item_size: None, speedup: 1.0, length: None, seed: 1 };

fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.csv");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn trace(text: &str, format: Format, selection: &Selection<'_>) -> Trace {
    let (_folder, path) = file(text);
    read(&path, format, selection).unwrap()
}

/// The fault, without the name of the folder.
fn fault(text: &str, format: Format, selection: &Selection<'_>) -> String {
    let (folder, path) = file(text);
    let error = read(&path, format, selection).unwrap_err().to_string();
    error.replace(&format!("{}/", folder.path().display()), "")
}

/// Times in milliseconds, and items.
fn jobs(trace: &Trace) -> Vec<(u128, f64)> {
    trace.jobs.iter().map(|job| (job.at.as_millis(), job.work)).collect()
}

#[test]
fn the_pools_of_a_file_are_in_the_order_of_their_first_rows() {
    let (_folder, path) = file("time,pool\n3,b\n1,a\n2,b\n4,\n");
    assert_eq!(pools(&path).unwrap(), ["b", "a", ""]);
    let (_folder, path) = file("time,work\n3,1\n");
    assert_eq!(pools(&path).unwrap(), [""; 0]);
    let (_folder, path) = file("at,pool\n3,b\n");
    assert!(pools(&path).unwrap_err().to_string().contains("has no column time"));
}

#[test]
fn our_own_rows_are_sorted_and_the_time_before_the_first_is_part_of_the_trace() {
    let text = "time,pool,work\n7.5,b,\n2,a,3\n4,a,1.5\n";
    let all = trace(text, Format::Own, &EVERYTHING);
    assert_eq!(jobs(&all), [(2000, 3.0), (4000, 1.5), (7500, 1.0)]);
    assert_eq!(all.length, Duration::from_millis(7500));
    let of_a = trace(text, Format::Own, &Selection { pool: Some("a"), item_size: Some(3.0), ..EVERYTHING });
    assert_eq!(jobs(&of_a), [(2000, 1.0), (4000, 0.5)]);
    let fast = Selection { speedup: 2.0, length: Some(Duration::from_secs(3)), ..EVERYTHING };
    let fast = trace(text, Format::Own, &fast);
    assert_eq!((jobs(&fast), fast.length), (vec![(1000, 3.0), (2000, 1.5)], Duration::from_secs(3)));
}

#[test]
fn our_own_times_may_be_dates_relative_to_the_earliest_of_all_pools() {
    let text = "\u{feff}pool,time\r\nb,2026-03-01T10:00:01.25+02:00\r\na,2026-03-01T08:00:00Z\r\n";
    let of_b = trace(text, Format::Own, &Selection { pool: Some("b"), ..EVERYTHING });
    assert_eq!(jobs(&of_b), [(1250, 1.0)]);
}

#[test]
fn azure_functions_of_2019_are_spread_over_their_minutes_by_the_seed() {
    let text = "HashOwner,HashApp,HashFunction,Trigger,1,2,3\no,shop,pay,http,0,40,1\no,shop,send,queue,2,0,0\n";
    let all = trace(text, Format::AzureFunctions, &EVERYTHING);
    let in_minute = |minute: u64| all.jobs.iter().filter(|job| job.at.as_secs() / 60 == minute).count();
    assert_eq!([0, 1, 2].map(in_minute), [2, 40, 1]);
    assert_eq!(all.length, Duration::from_secs(180));
    let second = |job: &Arrival| job.at.as_secs() % 60;
    assert!(all.jobs.iter().any(|job| second(job) < 20) && all.jobs.iter().any(|job| second(job) > 40));
    assert_eq!(all, trace(text, Format::AzureFunctions, &EVERYTHING));
    assert_ne!(all, trace(text, Format::AzureFunctions, &Selection { seed: 2, ..EVERYTHING }));
    for (pool, count) in [("shop", 43), ("pay", 41), ("send", 2)] {
        let selection = Selection { pool: Some(pool), ..EVERYTHING };
        assert_eq!(trace(text, Format::AzureFunctions, &selection).jobs.len(), count);
    }
}

#[test]
fn azure_functions_of_2021_begin_at_their_end_minus_their_duration() {
    let text = "app,func,end_timestamp,duration\nx,f,12.0,2.0\nx,g,11.5,0.5\ny,f,9.25,0.25\n";
    let all = trace(text, Format::AzureFunctions, &EVERYTHING);
    assert_eq!(jobs(&all), [(0, 1.0), (1000, 1.0), (2000, 1.0)]);
    let of_x = Selection { pool: Some("x"), item_size: Some(0.5), ..EVERYTHING };
    assert_eq!(jobs(&trace(text, Format::AzureFunctions, &of_x)), [(1000, 4.0), (2000, 1.0)]);
}

#[test]
fn azure_llm_times_are_read_in_the_formats_of_both_years() {
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                2023-11-16 18:15:46.6805900,300,20\n2023-11-16 18:15:48.1805900,90,10\n";
    assert_eq!(jobs(&trace(text, Format::AzureLlm, &EVERYTHING)), [(0, 1.0), (1500, 1.0)]);
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                2024-05-10 00:00:00.250000+00:00,300,20\n2024-05-10 00:00:01+00:00,90,10\n";
    let of_100_tokens = Selection { item_size: Some(100.0), ..EVERYTHING };
    assert_eq!(jobs(&trace(text, Format::AzureLlm, &of_100_tokens)), [(0, 3.2), (750, 1.0)]);
}

#[test]
fn burst_gpt_is_read_with_and_without_the_columns_of_its_second_release() {
    let text = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                105,ChatGPT,40,10,50,Conversation log\n100,GPT-4,25,0,25,API log\n";
    let of_25_tokens = Selection { item_size: Some(25.0), ..EVERYTHING };
    assert_eq!(jobs(&trace(text, Format::BurstGpt, &of_25_tokens)), [(0, 1.0), (5000, 2.0)]);
    let text = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
                105,3,1.5,ChatGPT,40,10,50,Conversation log\n100,,2,GPT-4,25,0,25,API log\n";
    let of_model = Selection { pool: Some("ChatGPT"), ..EVERYTHING };
    assert_eq!(jobs(&trace(text, Format::BurstGpt, &of_model)), [(5000, 1.0)]);
}

#[test]
fn an_invalid_value_is_reported_with_file_line_and_column() {
    for (text, format, expected) in [
        (
            "time\n1\n-2\n",
            Format::Own,
            "trace.csv line 3, column time: \"-2\" is not a number of seconds from 0 to 10000000000",
        ),
        (
            "time\n2026-03-01T08:00:00Z\n5\n",
            Format::Own,
            "trace.csv line 3, column time: \"5\" is not a time such as 2024-05-10T08:00:00.25Z",
        ),
        ("time,work\n1,NaN\n", Format::Own, "trace.csv line 2, column work: \"NaN\" is not a number of at least 0"),
        (
            "HashOwner,HashApp,HashFunction,Trigger,1,2\no,a,f,http,1,2.5\n",
            Format::AzureFunctions,
            "trace.csv line 2, column 2: \"2.5\" is not a whole number of at least 0",
        ),
        (
            "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n",
            Format::AzureLlm,
            "trace.csv line 2, column TIMESTAMP: \"yesterday\" is not a time such as 2024-05-10T08:00:00.25Z",
        ),
        ("time,pool\n1,a\n2\n", Format::Own, "trace.csv line 3: has 1 fields, but the header has 2"),
        (
            "Timestamp,Model\n1,a\n",
            Format::BurstGpt,
            "trace.csv line 1: has no column Request tokens; the header begins with \"Timestamp,Model\"",
        ),
        ("", Format::AzureFunctions, "trace.csv line 1: has no column HashApp; the header begins with \"\""),
    ] {
        assert_eq!(fault(text, format, &EVERYTHING), expected);
    }
}

#[test]
fn missing_information_in_a_file_is_an_error_not_an_empty_trace() {
    let of_pool = Selection { pool: Some("c"), ..EVERYTHING };
    assert_eq!(fault("time,pool\n1,a\n", Format::Own, &of_pool), "trace.csv: no row has the pool \"c\"");
    assert_eq!(
        fault("time\n1\n", Format::Own, &of_pool),
        "trace.csv line 1: has no column pool; the header begins with \"time\""
    );
    let text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00+00:00,3,2\n";
    let expected = "trace.csv: names no models, so pool has no meaning";
    assert_eq!(fault(text, Format::AzureLlm, &of_pool), expected);
    let of_size = Selection { item_size: Some(2.0), ..EVERYTHING };
    let text = "HashOwner,HashApp,HashFunction,Trigger,1\no,a,f,http,1\n";
    let expected = "trace.csv: counts invocations and measures nothing of them, so item_size has no meaning";
    assert_eq!(fault(text, Format::AzureFunctions, &of_size), expected);
    let expected = "trace.csv: its largest job is 2000000 items, more than 1000000; give an item_size";
    assert_eq!(fault("time,work\n1,2000000\n", Format::Own, &EVERYTHING), expected);
    let text = "HashOwner,HashApp,HashFunction,Trigger,1\no,a,f,http,4294967295\n";
    let expected = "trace.csv line 2: makes 4294967295 jobs, and a trace has at most 20000000; choose a pool";
    assert_eq!(fault(text, Format::AzureFunctions, &EVERYTHING), expected);
    let expected = "trace.csv: lasts longer than 366 days; give a length, or a speedup";
    assert_eq!(fault("time\n0\n1700000000\n", Format::Own, &EVERYTHING), expected);
    let expected = "trace.csv: its first time is 1700000000 s, and seconds count from the beginning of the trace; write \
                    seconds since 1970 as RFC 3339, or subtract the first time";
    for selection in [EVERYTHING, Selection { length: Some(Duration::from_secs(60)), ..EVERYTHING }] {
        assert_eq!(fault("time\n1700000000\n1700000001\n", Format::Own, &selection), expected);
    }
}
