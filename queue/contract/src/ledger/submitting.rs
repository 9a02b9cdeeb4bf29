//! Opening the record of a job.

use super::*;

pub async fn a_submitted_job_is_queued_with_every_field_intact(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let mut job = job(fixture, "A.b_c~d:e-1");
    job.class = queue::Class::Batch;
    job.deadline_at = Some(fixture.now() + Duration::from_secs(60));
    job.max_attempts = 7;
    assert_eq!(ledger.submit(std::slice::from_ref(&job)).await.unwrap(), [Submitted::New]);
    let expected = JobRecord {
        id: job.id.clone(),
        pool: pool(),
        class: job.class,
        state: JobState::Queued,
        attempts: 0,
        max_attempts: 7,
        created_at: job.created_at,
        deadline_at: job.deadline_at,
        started_at: None,
        finished_at: None,
        worker: None,
        error: None,
        output: None,
        history: Vec::new(),
    };
    assert_eq!(get(&*ledger, &job).await, expected);
    assert_eq!(get(&*open(fixture).await, &job).await, expected);
}

pub async fn an_unknown_job_has_no_record(fixture: &dyn Fixture) {
    assert_eq!(open(fixture).await.get(&"unknown".parse().unwrap()).await.unwrap(), None);
}

pub async fn submitting_twice_is_one_job(fixture: &dyn Fixture) {
    let (one, another) = (open(fixture).await, open(fixture).await);
    let job = job(fixture, "job");
    one.submit(std::slice::from_ref(&job)).await.unwrap();
    let record = get(&*one, &job).await;
    // Fields outside its identity may differ: the first submission counts.
    let again = Job { max_attempts: 9, created_at: job.created_at + Duration::from_secs(1), ..job.clone() };
    let publish = Some(Publication::first(job.id.clone()));
    let known = Submitted::Existing { record: Box::new(record.clone()), publish };
    assert_eq!(another.submit(std::slice::from_ref(&again)).await.unwrap(), [known]);
    assert_eq!(get(&*one, &job).await, record);

    let fresh = Job { id: "fresh".parse().unwrap(), ..job };
    let answers = one.submit(&[fresh.clone(), fresh]).await.unwrap();
    assert!(matches!(&answers[..], [Submitted::New, Submitted::Existing { .. }]), "{answers:?}");
}

pub async fn submitting_the_same_id_with_another_pool_or_input_is_a_conflict(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let first = job(fixture, "job");
    let mut by_reference = job(fixture, "big");
    by_reference.input.body = blob("input/big/1", "ab");
    accept(&*ledger, &[first.clone(), by_reference.clone()]).await;
    let mut others = vec![first.clone(), first.clone(), first.clone(), by_reference.clone()];
    others[0].pool = "bert".parse().unwrap();
    others[1].input.body = Body::Inline(Bytes::from_static(b"other"));
    others[2].input.media_type = "image/png".to_owned();
    others[3].input.body = blob("input/big/2", "cd");
    assert_eq!(ledger.submit(&others).await.unwrap(), vec![Submitted::Conflict; 4]);
    assert_eq!(get(&*ledger, &first).await.pool, first.pool);

    // Each submission stores its own object; the identity is the digest of the bytes.
    by_reference.input.body = blob("input/big/2", "ab");
    let answers = ledger.submit(&[by_reference]).await.unwrap();
    assert!(matches!(&answers[..], [Submitted::Existing { .. }]), "{answers:?}");
}

pub async fn a_job_with_a_confirmed_publication_need_not_be_published_again(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let job = job(fixture, "job");
    accept(&*ledger, std::slice::from_ref(&job)).await;
    let publish = |answers: Vec<Submitted>| match answers.into_iter().next() {
        Some(Submitted::Existing { publish, .. }) => publish,
        other => panic!("not known: {other:?}"),
    };
    assert_eq!(publish(ledger.submit(std::slice::from_ref(&job)).await.unwrap()), None);
    let lease = claim(&*ledger, &job).await;
    assert_eq!(publish(ledger.submit(std::slice::from_ref(&job)).await.unwrap()), None);
    finish(&*ledger, &lease, success("done")).await;
    assert_eq!(publish(ledger.submit(&[job]).await.unwrap()), None);
}

pub async fn answers_come_in_the_order_of_the_requests(fixture: &dyn Fixture) {
    let ledger = open(fixture).await;
    let [a, b, c] = ["a", "b", "c"].map(|id| job(fixture, id));
    accept(&*ledger, std::slice::from_ref(&b)).await;
    let answers = ledger.submit(&[c.clone(), b.clone(), a.clone()]).await.unwrap();
    assert!(matches!(&answers[..], [Submitted::New, Submitted::Existing { .. }, Submitted::New]), "{answers:?}");

    ledger.cancel(&b.id).await.unwrap();
    let requests = [&a, &b, &c].map(|job| ClaimRequest::new(job.clone(), false));
    let claims = ledger.claim(&WorkerId::new("worker"), requests.to_vec(), LEASE).await.unwrap();
    let [Claim::Granted { lease: first, .. }, Claim::Ended(JobState::Cancelled), Claim::Granted { lease: third, .. }] =
        &claims[..]
    else {
        panic!("{claims:?}")
    };
    assert_eq!((&first.id, &third.id), (&a.id, &c.id));

    let lost = Lease { id: b.id, fence: 1, attempt: 1 };
    let leases = [third.clone(), lost.clone(), first.clone()];
    assert_eq!(ledger.renew(&leases, LEASE).await.unwrap(), [true, false, true]);
    let finishes = [(third, success("c")), (&lost, success("b")), (first, Outcome::Failed(error("a")))];
    let finishes = finishes.map(|(lease, outcome)| Finish { lease: lease.clone(), outcome });
    let finished = ledger.finish(finishes.to_vec()).await.unwrap();
    assert_eq!(
        finished.iter().map(Finished::state).collect::<Vec<_>>(),
        [Some(JobState::Succeeded), None, Some(JobState::Failed)]
    );
}

pub async fn a_submitted_job_survives_the_death_of_its_process(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    let jobs = jobs(fixture, 3);
    accept(&*process.ledger, &jobs[..2]).await;
    let lease = claim(&*process.ledger, &jobs[0]).await;
    finish(&*process.ledger, &lease, success("done")).await;
    process.ledger.submit(&jobs[2..]).await.unwrap();
    fixture.kill(process).await;

    let ledger = open(fixture).await;
    assert_eq!(get(&*ledger, &jobs[0]).await.output, Some(output("done")));
    assert_eq!(get(&*ledger, &jobs[1]).await.state, JobState::Queued);
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    let due = due(&*ledger).await;
    assert_eq!(due.iter().map(|due| &due.job).collect::<Vec<_>>(), [&jobs[2]]);
}

pub async fn a_ledger_beside_its_broker_records_publishes_and_confirms_in_one_call(fixture: &dyn Fixture) {
    let process = fixture.open().await;
    assert!(process.ledger.store().is_some());
    assert_eq!(process.ledger.store(), process.broker.producer().await.unwrap().store());
    assert_ne!(process.ledger.store(), fixture.open().await.ledger.store(), "another handle");
    let [unpublished, confirmed, mut new] = ["unpublished", "confirmed", "new"].map(|id| job(fixture, id));
    new.deadline_at = Some(fixture.now() + PUBLISH_TIMEOUT * 4);
    new.trace_parent = Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned());
    new.input.body = Body::Inline(Bytes::from_static(&[0xff, 0x00, 0xfe]));
    let mut by_reference = job(fixture, "big");
    by_reference.input.body = blob("input/big/1", "ab");
    process.ledger.submit(std::slice::from_ref(&unpublished)).await.unwrap();
    accept(&*process.ledger, std::slice::from_ref(&confirmed)).await;
    let conflict = Job { pool: "bert".parse().unwrap(), ..confirmed.clone() };
    let jobs = [unpublished.clone(), confirmed, new.clone(), conflict, by_reference.clone()];
    let answers = process.ledger.submit_and_publish(&jobs).await.unwrap();
    let [
        Submitted::Existing { publish: Some(_), .. },
        Submitted::Existing { publish: None, .. },
        Submitted::New,
        Submitted::Conflict,
        Submitted::New,
    ] = &answers[..]
    else {
        panic!("{answers:?}")
    };
    assert_eq!(counts(&*process.ledger).await, JobCounts { queued: 4, ..JobCounts::default() });
    fixture.kill(process).await;

    let process = fixture.open().await;
    let consumer = process.broker.consumer(&pool()).await.unwrap();
    let published = soon(consumer.receive(10)).await.unwrap();
    let published: Vec<_> = published.into_iter().map(|delivery| delivery.job.clone()).collect();
    assert_eq!(published, [unpublished, new.clone(), by_reference]);
    fixture.advance(PUBLISH_TIMEOUT * 2).await;
    assert!(due(&*process.ledger).await.is_empty(), "every publication is confirmed");
    fixture.advance(PUBLISH_TIMEOUT * 3).await;
    assert!(due(&*process.ledger).await.is_empty());
    assert_eq!(get(&*process.ledger, &new).await.state, JobState::Expired);
}
