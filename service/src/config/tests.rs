//! Settings from all sources, their faults, their schema and their reference.

use std::collections::BTreeMap;
use std::io::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;
use crate::{ByteSize, Period};

/// Settings of every type that occurs in the program.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Root {
    /// The address
    /// and its limits.
    gateway: Gateway,
    pools: BTreeMap<String, Pool>,
    store: Option<Store>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Gateway {
    /// HOST:PORT | a name.
    listen: String,
    token: Option<Secret>,
    upstream: Option<SecretUrl>,
    body_limit: ByteSize,
    idle_timeout: Period,
    mood: Mood,
    port: u16,
    connections: u32,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            token: None,
            upstream: None,
            body_limit: ByteSize::mib(1),
            idle_timeout: Period::seconds(5),
            mood: Mood::Calm,
            port: 1,
            connections: 1,
        }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mood {
    /// A variant with a comment has another schema than one without.
    Calm,
    /// The other variant.
    Wild,
}

/// A type that lacks `deny_unknown_fields`, as a new type might.
#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Pool {
    model: String,
    #[serde(default)]
    batch: Batch,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Batch {
    #[schemars(range(min = 1))]
    max_items: u32,
    #[schemars(length(min = 1))]
    sizes: Vec<u32>,
    at_most: Option<u32>,
}

impl Default for Batch {
    fn default() -> Self {
        Self { max_items: 32, sizes: vec![1], at_most: None }
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum Store {
    /// Files.
    Directory { path: String },
    /// Objects.
    Bucket { name: String, password: Secret },
}

impl Config for Root {
    fn check(&self, faults: &mut Faults) {
        for (name, pool) in &self.pools {
            if let Some(most) = pool.batch.at_most
                && most > pool.batch.max_items
            {
                faults.refuse(format_args!("pools.{name}.batch.at_most"), most, "is more than max_items");
            }
        }
    }
}

/// Sources of a test, and the file that they name.
struct TestSources {
    file: Option<tempfile::NamedTempFile>,
    sources: Sources,
}

fn file(text: &str) -> TestSources {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    TestSources { file: Some(file), sources }
}

fn no_file() -> TestSources {
    TestSources { file: None, sources: Sources::default() }
}

impl TestSources {
    fn environment(mut self, name: &str, value: &str) -> Self {
        self.sources.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn set(mut self, flag: &str) -> Self {
        self.sources.flags.push(flag.to_owned());
        self
    }

    fn load(self) -> Root {
        load(&self.sources).unwrap()
    }

    fn faults(self) -> Vec<String> {
        let faults = load::<Root>(&self.sources).unwrap_err();
        drop(self.file);
        faults.to_string().lines().map(str::to_owned).collect()
    }
}

#[test]
fn without_any_source_every_setting_has_its_default() {
    assert_eq!(no_file().load(), Root::default());
    assert_eq!(file("").load(), Root::default());
    assert_eq!(file("# only a comment\n").load(), Root::default());
}

#[test]
fn a_file_is_read_with_its_units() {
    let root = file(
        "gateway: {listen: '0.0.0.0:80', body_limit: 256KiB, idle_timeout: 1m30s, mood: wild, token: hunter2}\n\
         pools:\n  digits:\n    model: models/digits\n    batch:\n      max_items: 8\n\
         store: {kind: bucket, name: b, password: p}\n",
    )
    .load();
    assert_eq!(root.gateway.listen, "0.0.0.0:80");
    assert_eq!(root.gateway.body_limit, ByteSize::kib(256));
    assert_eq!(root.gateway.idle_timeout, Period::seconds(90));
    assert_eq!(root.gateway.mood, Mood::Wild);
    assert_eq!(root.gateway.token, Some(Secret::new("hunter2")));
    assert_eq!(root.pools["digits"].batch.max_items, 8);
    assert_eq!(root.store, Some(Store::Bucket { name: "b".to_owned(), password: Secret::new("p") }));
}

#[test]
fn the_environment_overrides_the_file_and_a_flag_overrides_both() {
    let sources = || file("gateway: {listen: file, idle_timeout: 1s, port: 1}\n");
    assert_eq!(sources().load().gateway.listen, "file");
    let sources = || {
        sources().environment("MILLRACE__GATEWAY__LISTEN", "environment").environment("MILLRACE__GATEWAY__PORT", "2")
    };
    assert_eq!(sources().load().gateway.listen, "environment");
    let root = sources().set("gateway.listen=flag").load();
    assert_eq!((root.gateway.listen.as_str(), root.gateway.port), ("flag", 2));
    assert_eq!(root.gateway.idle_timeout, Period::seconds(1));
}

#[test]
fn the_last_flag_wins() {
    assert_eq!(no_file().set("gateway.port=1").set("gateway.port=2").load().gateway.port, 2);
}

#[test]
fn a_flag_can_add_a_pool_and_set_a_list() {
    let root = no_file().set("pools.digits.model=m").set("pools.digits.batch.sizes=[1, 2]").load();
    assert_eq!(root.pools["digits"].batch.sizes, [1, 2]);
}

#[test]
fn a_text_from_the_environment_needs_no_quotes() {
    let root = no_file()
        .environment("MILLRACE__GATEWAY__LISTEN", "0123")
        .environment("MILLRACE__GATEWAY__TOKEN", "true # not a comment")
        .environment("MILLRACE__POOLS__DIGITS__MODEL", "*m")
        .load();
    assert_eq!(root.gateway.listen, "0123");
    assert_eq!(root.gateway.token, Some(Secret::new("true # not a comment")));
    assert_eq!(root.pools["digits"].model, "*m");
}

#[test]
fn an_optional_text_can_be_removed() {
    assert_eq!(file("gateway: {token: t}").set("gateway.token=null").load().gateway.token, None);
}

#[test]
fn other_environment_variables_are_ignored() {
    let sources =
        no_file().environment("PATH", "/bin").environment("MILLRACE_HOME", "/").environment("MILLRACER__A", "1");
    assert_eq!(sources.load(), Root::default());
}

#[test]
fn all_faults_are_reported_at_once() {
    let faults = file(
        "gateway:\n  lisen: '0.0.0.0:80'\n  idle_timeout: soon\n  body_limit: 5 apples\n  mood: wilde\n\
         pools:\n  resnet50:\n    batch: {max_items: 0, sizes: [], at_most: 5}\n  digits: {model: 7, modell: m}\n\
         stor: 1\n",
    )
    .environment("MILLRACE__GATEWAY__PORT", "70000")
    .set("gateway.connections=5000000000")
    .faults();
    let expected = [
        "gateway.lisen: unknown key (did you mean \"listen\"?)",
        "gateway.idle_timeout: \"soon\" is not a duration such as 250ms, 5s or 1h30m",
        "gateway.body_limit: \"5 apples\" is not a size such as 512B, 256KiB or 1.5GiB",
        "gateway.mood: \"wilde\" is not one of calm, wild",
        "gateway.port: 70000 is not at most 65535",
        "gateway.connections: 5000000000 is not at most 4294967295",
        "pools.resnet50.batch.max_items: 0 is not at least 1",
        "pools.resnet50.batch.sizes: a list has fewer than 1 entries",
        "pools.resnet50.model: is missing",
        "pools.digits.model: 7 is not a text",
        "pools.digits.modell: unknown key (did you mean \"model\"?)",
        "stor: unknown key (did you mean \"store\"?)",
    ];
    for line in expected {
        assert!(faults.contains(&line.to_owned()), "{line}\nis not in\n{}", faults.join("\n"));
    }
    assert_eq!(faults.len(), expected.len(), "{}", faults.join("\n"));
}

#[test]
fn a_rule_over_two_keys_is_reported_beside_an_unknown_key() {
    let faults = file("pools: {a: {model: m, batch: {max_items: 2, at_most: 3}}}\ncolour: red\n").faults();
    assert_eq!(faults, ["colour: unknown key", "pools.a.batch.at_most: 3 is more than max_items"]);
}

#[test]
fn a_value_of_the_wrong_type_is_reported_with_the_right_type() {
    let faults = |text| file(text).faults();
    assert_eq!(faults("gateway: 5"), ["gateway: 5 is not a mapping"]);
    assert_eq!(faults("gateway: {port: http}"), ["gateway.port: \"http\" is not a whole number"]);
    assert_eq!(faults("gateway: {port: 1.5}"), ["gateway.port: 1.5 is not a whole number"]);
    assert_eq!(faults("gateway: {port: -1}"), ["gateway.port: -1 is not at least 0"]);
    assert_eq!(faults("pools: [a]"), ["pools: a list is not a mapping"]);
    let rule = "is not a duration such as 250ms, 5s or 1h30m";
    assert_eq!(faults("gateway: {idle_timeout: 5}"), [format!("gateway.idle_timeout: 5 {rule}")]);
    assert_eq!(faults("gateway: {idle_timeout: }"), [format!("gateway.idle_timeout: null {rule}")]);
    assert_eq!(
        faults("pools: {a: {model: m, batch: {sizes: [1, x]}}}"),
        ["pools.a.batch.sizes[1]: \"x\" is not a whole number"]
    );
    assert_eq!(
        faults("pools: {a: {model: m, batch: {at_most: x}}}"),
        ["pools.a.batch.at_most: \"x\" is not a whole number"]
    );
}

#[test]
fn of_several_forms_the_intended_one_is_reported() {
    let faults = |text| file(text).faults();
    assert_eq!(faults("store: {kind: directory}"), ["store.path: is missing"]);
    assert_eq!(faults("store: {kind: tape}"), ["store.kind: \"tape\" is not one of directory, bucket"]);
    assert_eq!(
        faults("store: {kind: directory, path: p, pth: q}"),
        ["store.pth: unknown key (did you mean \"path\"?)"]
    );
    assert_eq!(faults("store: 5"), ["store: a number has none of the allowed forms"]);
}

#[test]
fn a_secret_is_in_no_fault() {
    for text in [
        "gateway: {token: [hunter2]}",
        "gateway: {token: 1234567}",
        "gateway: {token: {hunter2: 1234567}}",
        "store: {kind: bucket, name: 1, password: 1234567}",
        "gateway: {token: hunter2, token: 1234567}",
        "gateway:\n  token: hunter2\n  - 1234567\n",
    ] {
        let faults = file(text).faults().join("\n");
        assert!(!faults.contains("hunter2") && !faults.contains("1234567"), "{faults}");
    }
}

/// A file of a secret, as Kubernetes mounts it.
fn secret_file(contents: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(contents).unwrap();
    file
}

#[test]
fn a_secret_can_be_in_a_file() {
    for (contents, expected) in [("hunter2", "hunter2"), ("hunter2\n", "hunter2"), ("a\r\n", "a"), ("a \n\n", "a \n")] {
        let secret = secret_file(contents.as_bytes());
        let path = secret.path().display();
        let root = file(&format!("gateway: {{token: '${{file:{path}}}'}}\n")).load();
        assert_eq!(root.gateway.token, Some(Secret::new(expected)));
        let root = no_file().environment("MILLRACE__GATEWAY__TOKEN", &format!("a ${{file:{path}}} b")).load();
        assert_eq!(root.gateway.token, Some(Secret::new(format!("a {expected} b"))));
    }
}

#[test]
fn a_url_reads_its_files_at_each_use() {
    let (password, url) = (secret_file(b"p@ss/w\xc3\xb6rd%\n"), secret_file(b"redis://:a%40b@host\n"));
    let part = SecretUrl::new(format!("redis://me:${{file:{}}}@host/1", password.path().display()));
    assert_eq!(part.read().unwrap(), "redis://me:p%40ss%2Fw%C3%B6rd%25@host/1");
    let whole = SecretUrl::new(format!("${{file:{}}}", url.path().display()));
    assert_eq!(whole.read().unwrap(), "redis://:a%40b@host");
    std::fs::write(password.path(), "renewed").unwrap();
    assert_eq!(part.read().unwrap(), "redis://me:renewed@host/1");
    assert_eq!(format!("{part:?} {}", serde_json::to_string(&part).unwrap()), "*** \"***\"");
    assert!(part.reads_files() && whole.reads_files() && !SecretUrl::new("redis://host").reads_files());
    // The settings keep the reference.
    let loaded = file(&format!("gateway: {{upstream: '${{file:{}}}'}}\n", url.path().display())).load();
    std::fs::write(url.path(), "redis://other").unwrap();
    assert_eq!(loaded.gateway.upstream.unwrap().read().unwrap(), "redis://other");
}

#[test]
fn a_file_of_a_secret_that_cannot_be_used_is_named_with_its_key_and_without_its_contents() {
    let long = [b'x'; 70_000];
    for (contents, rule) in [
        (&b""[..], "is empty"),
        (b"\n", "is empty"),
        (b"hunter2\xff", "is not a text in UTF-8"),
        (&long, "has more than 65536 bytes"),
    ] {
        let secret = secret_file(contents);
        let path = secret.path();
        let faults = file(&format!("gateway: {{token: '${{file:{}}}'}}\n", path.display())).faults();
        assert_eq!(faults, [format!("gateway.token: {path:?} {rule}")]);
        let url = SecretUrl::new(format!("redis://${{file:{}}}@host", path.display()));
        assert_eq!(url.read(), Err(format!("{path:?} {rule}")));
    }
    assert_eq!(
        no_file().set("gateway.token=${file:/nowhere/token}").faults(),
        ["gateway.token: \"/nowhere/token\" cannot be read: No such file or directory (os error 2)"]
    );
    assert_eq!(
        no_file().set("gateway.token=${file:/nowhere").faults(),
        ["gateway.token: has ${file: without }: write ${file:PATH}"]
    );
    let two_lines = secret_file(b"redis://me:hunter2@host\nredis://host");
    let path = two_lines.path();
    let error = SecretUrl::new(format!("${{file:{}}}", path.display())).read().unwrap_err();
    assert_eq!(error, format!("{path:?} has a space or several lines, which a URL does not have"));
}

#[test]
fn a_setting_without_a_secret_reads_no_file() {
    let secret = secret_file(b"hunter2");
    let reference = format!("${{file:{}}}", secret.path().display());
    let expected =
        |key: &str| format!("{key}: {reference:?} has ${{file:PATH}}, which only settings with a secret may have");
    let faults = no_file().set(&format!("gateway.listen={reference}")).faults();
    assert_eq!(faults, [expected("gateway.listen")]);
    let faults = no_file().set(&format!("pools.digits.model={reference}")).faults();
    assert_eq!(faults, [expected("pools.digits.model")]);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let sources = Sources { file: Some("/nowhere/millrace.yaml".into()), ..Sources::default() };
    let faults = load::<Root>(&sources).unwrap_err().to_string();
    assert_eq!(faults, "/nowhere/millrace.yaml: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn a_file_that_is_not_yaml_is_named_with_the_position() {
    let sources = file("gateway: {listen: a\n");
    let path = sources.sources.file.clone().unwrap();
    let faults = sources.faults().join("\n");
    assert!(faults.starts_with(&format!("{}: is not YAML: ", path.display())), "{faults}");
    assert!(faults.contains("line"), "{faults}");
    let sources = file("- a\n");
    let path = sources.sources.file.clone().unwrap();
    assert_eq!(sources.faults(), [format!("{}: is not a mapping of keys to values", path.display())]);
}

#[test]
fn a_flag_or_variable_that_names_no_key_is_a_fault() {
    assert_eq!(
        no_file().set("gateway.listen").faults(),
        ["--set: \"gateway.listen\" is not key=value or key.key=value"]
    );
    assert_eq!(no_file().set("=hunter2").faults(), ["--set: \"\" is not key=value or key.key=value"]);
    assert_eq!(
        no_file().environment("MILLRACE__A____B", "1").faults(),
        ["MILLRACE__A____B: is not MILLRACE__KEY or MILLRACE__KEY__KEY"]
    );
    assert_eq!(no_file().environment("MILLRACE__COLOUR", "red").faults(), ["colour: unknown key"]);
    assert_eq!(no_file().set("gateway=5").faults(), ["gateway: 5 is not a mapping"]);
}

#[test]
fn the_published_schema_is_a_schema_and_refuses_unknown_keys_everywhere() {
    let schema = schema::<Root>();
    assert!(jsonschema::meta::is_valid(&schema));
    assert_eq!(schema["additionalProperties"], false);
    for definition in ["Gateway", "Pool", "Batch"] {
        assert_eq!(schema["$defs"][definition]["additionalProperties"], false, "{definition}");
    }
}

#[test]
fn the_reference_has_a_row_for_every_key_with_its_type_default_and_meaning() {
    let text = reference::<Root>();
    for row in [
        "| `gateway` | [section](#gateway) |  | The address and its limits. |",
        "| `listen` | text | `127.0.0.1:8080` | HOST:PORT \\| a name. |",
        "| `token` | secret text | none |  |",
        "| `body_limit` | size | `1MiB` | A number of bytes: a plain number, or one with a unit (KiB = 1024 bytes, kB = 1000 \
         bytes). |",
        "| `idle_timeout` | duration | `5s` | A length of time: numbers with the units ns, us, ms, s, m, h, d. |",
        "| `mood` | `calm`, `wild` | `calm` |  |",
        "| `port` | whole number | `1` |  |",
        "| `model` | text | required |  |",
        "| `max_items` | whole number, at least 1 | `32` |  |",
        "| `sizes` | list of: whole number | `[1]` |  |",
        "| `at_most` | whole number | none |  |",
    ] {
        assert!(text.contains(row), "{row}\nis not in\n{text}");
    }
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, ["gateway", "pools.NAME", "pools.NAME.batch"]);
}
