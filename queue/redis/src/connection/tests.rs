use futures::StreamExt as _;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::private::PrivateRedis;
use super::*;
use queue::UrlSource;
use queue_contract::soon;

fn open(url: String) -> Redis {
    Redis::open(&url.parse().unwrap(), Clock::default()).unwrap()
}

async fn set(redis: &Redis, value: &str) -> Result<()> {
    let mut command = ::redis::cmd("SET");
    command.arg(redis.key("a")).arg(value);
    redis.run("set", &command).await
}

/// Repeats the write until the server is available again.
async fn set_eventually(redis: &Redis, value: &str) {
    soon(async {
        while let Err(error) = set(redis, value).await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
    })
    .await;
}

async fn get(redis: &Redis) -> String {
    let mut command = ::redis::cmd("GET");
    command.arg(redis.key("a"));
    redis.run("get", &command).await.unwrap()
}

#[tokio::test]
async fn a_server_that_is_down_is_unavailable_until_it_is_back() {
    let mut server = PrivateRedis::new(&[]);
    let redis = open(format!("redis://{}", server.address()));
    for _ in 0..3 {
        assert_eq!(set(&redis, "1").await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    server.start();
    set_eventually(&redis, "1").await;
    server.kill();
    assert_eq!(set(&redis, "2").await.unwrap_err().kind(), ErrorKind::Unavailable);
    server.start();
    set_eventually(&redis, "3").await;
    assert_eq!(get(&redis).await, "3");
}

#[tokio::test]
async fn a_server_that_would_drop_jobs_is_rejected_with_the_way_out() {
    let server = PrivateRedis::started(&["--maxmemory-policy", "allkeys-lru"]);
    let redis = open(format!("redis://{}", server.address()));
    let error = set(&redis, "1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("CONFIG SET maxmemory-policy noeviction"), "{error}");
    server.run::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    set(&redis, "1").await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_rejected_and_not_shown() {
    let server = PrivateRedis::started(&["--requirepass", "right"]);
    set(&open(format!("redis://:right@{}/2", server.address())), "1").await.unwrap();
    for credentials in ["", ":wrong@", "unknown:right@"] {
        let error = set(&open(format!("redis://{credentials}{}", server.address())), "1").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(!error.to_string().contains(":wrong") && !error.to_string().contains("right"), "{error}");
    }
}

#[tokio::test]
async fn a_renewed_password_is_read_for_the_next_connection() {
    let server = PrivateRedis::started(&[]);
    let set_password = async |password: &str| {
        let password = format!(">{password}");
        let user = ["ACL", "SETUSER", "me", "on", "resetpass", &password, "~*", "&*", "+@all"];
        server.run::<()>(&user).await;
    };
    set_password("first").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |text: &str| std::fs::write(file.path(), text).unwrap();
    write("first");
    let (path, address) = (file.path().to_owned(), server.address());
    let read = move || Ok(format!("redis://me:{}@{address}", std::fs::read_to_string(&path).unwrap()));
    let url: RedisUrl = read().unwrap().parse().unwrap();
    let redis = Redis::open(&url.renewed_by(UrlSource::new(read)), Clock::default()).unwrap();
    set(&redis, "1").await.unwrap();

    set_password("second").await;
    write("not/a:password@?");
    server.run::<u32>(&["CLIENT", "KILL", "USER", "me"]).await;
    let error = async {
        loop {
            match set(&redis, "2").await {
                Err(error) if error.kind() == ErrorKind::Denied => return error.to_string(),
                _ => {}
            }
        }
    };
    let error = soon(error).await;
    assert!(error.contains("cannot read the URL for a new connection") && !error.contains("not/a"), "{error}");
    write("second");
    soon(async { while set(&redis, "3").await.is_err() {} }).await;
    assert_eq!(get(&redis).await, "3");
}

/// A folder with an authority, and with the files of a server and of a client.
fn certificates() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate whose issuer has its own name for a self-signed one.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("ca.crt", authority.pem());
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        write(&format!("{name}.crt"), params.signed_by(&key, &authority).unwrap().pem());
        write(&format!("{name}.key"), key.serialize_pem());
    }
    folder
}

/// A server whose port speaks TLS, with these files. It also accepts plain connections, for the test.
fn tls_server(files: &tempfile::TempDir, clients: &str) -> (PrivateRedis, u16) {
    let port = super::private::free_port().to_string();
    let file = |name: &str| files.path().join(name).display().to_string();
    let (certificate, key, ca) = (file("server.crt"), file("server.key"), file("ca.crt"));
    let options = ["--tls-port", &port, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let options = [&options[..], &["--tls-ca-cert-file", &ca, "--tls-auth-clients", clients]].concat();
    (PrivateRedis::started(&options), port.parse().unwrap())
}

#[tokio::test]
async fn commands_and_subscriptions_go_over_tls_and_only_to_a_server_that_is_trusted() {
    let (files, others) = (certificates(), certificates());
    let (_server, port) = tls_server(&files, "no");
    let url =
        |of: &tempfile::TempDir, host| format!("rediss://{host}:{port}?ca={}", of.path().join("ca.crt").display());
    let redis = open(url(&files, "localhost"));
    set(&redis, "1").await.unwrap();
    assert_eq!(get(&redis).await, "1");
    drop(redis.subscribe("channel").await.unwrap());
    for distrusted in [url(&others, "localhost"), url(&files, "127.0.0.1"), format!("rediss://localhost:{port}")] {
        let error = set(&open(distrusted), "2").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("ertificate"), "{error}");
    }
    let missing = format!("rediss://localhost:{port}?ca=/nowhere/ca.crt").parse().unwrap();
    let error = Redis::open(&missing, Clock::default()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().starts_with("redis: ca: cannot read /nowhere/ca.crt"), "{error}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_it() {
    let files = certificates();
    let (_server, port) = tls_server(&files, "yes");
    let file = |name: &str| files.path().join(name).display().to_string();
    let without = format!("rediss://localhost:{port}?ca={}", file("ca.crt"));
    assert!(set(&open(without.clone()), "1").await.is_err());
    let redis = open(format!("{without}&cert={}&key={}", file("client.crt"), file("client.key")));
    set(&redis, "1").await.unwrap();
}

#[tokio::test]
async fn a_renewed_authority_is_read_for_the_next_connection() {
    let (files, others) = (certificates(), certificates());
    let (server, port) = tls_server(&others, "no");
    let redis = open(format!("rediss://localhost:{port}?ca={}", files.path().join("ca.crt").display()));
    assert_eq!(set(&redis, "1").await.unwrap_err().kind(), ErrorKind::Denied);
    std::fs::copy(others.path().join("ca.crt"), files.path().join("ca.crt")).unwrap();
    soon(async { while set(&redis, "1").await.is_err() {} }).await;
    assert_eq!(server.run::<String>(&["GET", &redis.key("a")]).await, "1");
}

#[tokio::test]
async fn a_subscription_is_active_when_it_is_returned_and_ends_with_its_connection() {
    let mut server = PrivateRedis::started(&[]);
    let redis = open(format!("redis://{}", server.address()));
    let mut messages = redis.subscribe("channel").await.unwrap();
    let mut publish = ::redis::cmd("PUBLISH");
    publish.arg("channel").arg("now");
    assert_eq!(redis.run::<u32>("publish", &publish).await.unwrap(), 1);
    assert_eq!(soon(messages.next()).await, Some(b"now".to_vec()));
    server.kill();
    assert_eq!(soon(messages.next()).await, None);
}

#[tokio::test]
async fn a_blocking_command_delays_no_other() {
    let server = PrivateRedis::started(&[]);
    let redis = open(format!("redis://{}", server.address()));
    let mut waiting = ::redis::cmd("BLPOP");
    waiting.arg(redis.key("list")).arg(30);
    let mut pushing = ::redis::cmd("RPUSH");
    pushing.arg(redis.key("list")).arg("x");
    let waited = redis.blocking::<(String, String)>("wait", &waiting, Duration::from_secs(30));
    let (waited, pushed) = soon(futures::future::join(waited, redis.run::<u32>("push", &pushing))).await;
    assert_eq!((waited.unwrap().1.as_str(), pushed.unwrap()), ("x", 1));
}

#[tokio::test]
async fn a_sentinel_leads_to_the_new_server_of_its_service() {
    let mut first = PrivateRedis::started(&[]);
    let first_port = first.port().to_string();
    let second = PrivateRedis::started(&["--replicaof", "127.0.0.1", &first_port]);
    let sentinel = PrivateRedis::started(&["--sentinel"]);
    sentinel.run::<()>(&["SENTINEL", "MONITOR", "jobs", "127.0.0.1", &first_port, "1"]).await;
    sentinel.run::<()>(&["SENTINEL", "SET", "jobs", "down-after-milliseconds", "500"]).await;
    let down = PrivateRedis::new(&[]);
    let redis = open(format!("redis-sentinel://{},{}/jobs", down.address(), sentinel.address()));
    set(&redis, "1").await.unwrap();
    // Only a replica that has the data may take over.
    soon(async { while first.run::<u32>(&["WAIT", "1", "1000"]).await == 0 {} }).await;
    let knows_replica = async {
        while sentinel.run::<Vec<::redis::Value>>(&["SENTINEL", "REPLICAS", "jobs"]).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon(knows_replica).await;
    first.kill();
    set_eventually(&redis, "2").await;
    assert_eq!(second.run::<String>(&["GET", &redis.key("a")]).await, "2");

    let unknown = open(format!("redis-sentinel://{}/other", sentinel.address()));
    assert!(set(&unknown, "1").await.unwrap_err().to_string().contains("no service has this name"));
}

#[tokio::test]
async fn hosts_that_do_not_answer_do_not_delay_those_that_do() {
    let node = PrivateRedis::started(&["--cluster-enabled", "yes"]);
    node.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    // The kernel accepts connections for these listeners, but no process answers.
    let silent = [(); 3].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let hosts = silent.each_ref().map(|host| host.local_addr().unwrap().to_string()).join(",");
    let redis = open(format!("redis://{hosts},{}?cluster=true", node.address()));
    set_eventually(&redis, "1").await;
    assert_eq!(node.run::<String>(&["GET", &redis.key("a")]).await, "1");
}

#[tokio::test]
async fn the_cluster_node_that_holds_the_keys_is_found() {
    let options = ["--cluster-enabled", "yes"];
    let (first, second) = (PrivateRedis::started(&options), PrivateRedis::started(&options));
    second.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    first.run::<()>(&["CLUSTER", "MEET", "127.0.0.1", &second.port().to_string()]).await;
    let redis = open(format!("redis://{}?cluster=true", first.address()));
    set_eventually(&redis, "1").await;
    assert_eq!(second.run::<String>(&["GET", &redis.key("a")]).await, "1");
}
