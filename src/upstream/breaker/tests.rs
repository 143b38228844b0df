use super::*;
use crate::limits::{BREAKER_PROBE_PATIENCE, STALE_SOFT_DEADLINE};

fn host() -> Host {
    "registry.test".parse().unwrap()
}

/// Of an endpoint that has no other behind it.
const ALONE: Manners = Manners { probe_patience: BREAKER_PROBE_PATIENCE, slow: STALE_SOFT_DEADLINE };

fn breakers() -> (Breakers, Telemetry) {
    let telemetry = Telemetry::new(&[host()]);
    (Breakers::new(Arc::new(Board::new(host(), telemetry.clone())), ALONE), telemetry)
}

fn failed() -> Result<(), UpstreamError> {
    Err(UpstreamError::Connect { upstream: host(), reason: "connect" })
}

fn limited(seconds: u64) -> Result<(), UpstreamError> {
    Err(UpstreamError::RateLimited { upstream: host(), retry_after: Duration::from_secs(seconds) })
}

/// One call with that result; `None` when the breaker does not let it through.
fn call(breaker: &Arc<Breaker>, result: &Result<(), UpstreamError>) -> Option<bool> {
    let pass = breaker.admit(&host()).ok()?;
    let probe = pass.is_probe();
    pass.conclude(result);
    Some(probe)
}

fn gauge(telemetry: &Telemetry) -> String {
    let text = telemetry.render();
    let series = "sealgate_upstream_breaker_state{upstream=\"registry.test\"} ";
    text.lines().find_map(|line| line.strip_prefix(series)).unwrap().to_owned()
}

async fn advance(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[test]
fn retry_after_is_seconds_or_a_date_and_clamped() {
    let now: Timestamp = "1994-11-06T08:49:00Z".parse().unwrap();
    let rows = [
        (Some("7"), Some(7)),
        (Some("0"), Some(1)),
        (Some("1"), Some(1)),
        (Some("300"), Some(300)),
        (Some("301"), Some(300)),
        (Some("99999999999999999999999"), Some(300)),
        (Some("Sun, 06 Nov 1994 08:49:37 GMT"), Some(37)),
        (Some("Sun, 06 Nov 1994 07:49:37 GMT"), Some(1)),
        (Some("Mon, 07 Nov 1994 08:49:37 GMT"), Some(300)),
        (Some("soon"), None),
        (Some("-1"), None),
        (Some(""), None),
        (None, None),
    ];
    for (text, seconds) in rows {
        assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text:?}");
    }
    assert_eq!(limited_for(Some("soon"), now), RETRY_AFTER_DEFAULT);
}

#[tokio::test(start_paused = true)]
async fn u09_after_a_429_nobody_asks_until_its_time_has_passed_and_then_one_does() {
    let (breakers, telemetry) = breakers();
    let breaker = breakers.of(None);
    let early = breaker.admit(&host()).unwrap();
    assert_eq!(call(&breaker, &limited(20)), Some(false));
    // A shorter one, of a request that was under way, does not shorten it; and a success of one does not end it.
    let (other, third) = (breakers.of(None), early);
    other.conclude(false, Outcome::Limited(Duration::from_secs(5)));
    third.conclude(&Ok::<_, UpstreamError>(()));
    assert_eq!(gauge(&telemetry), "2");
    advance(19).await;
    let error = breaker.admit(&host()).unwrap_err();
    let one = Duration::from_secs(1);
    assert!(matches!(error, UpstreamError::RateLimited { retry_after, .. } if retry_after == one), "{error:?}");
    advance(1).await;
    let probe = breaker.admit(&host()).unwrap();
    assert!(probe.is_probe());
    assert_eq!(gauge(&telemetry), "1");
    let waiting = breaker.admit(&host()).unwrap_err();
    assert!(matches!(waiting, UpstreamError::RateLimited { .. }), "one probe at a time: {waiting:?}");
    probe.conclude(&limited(7));
    advance(6).await;
    assert_eq!(call(&breaker, &Ok(())), None);
    advance(1).await;
    assert_eq!(call(&breaker, &Ok(())), Some(true));
    assert_eq!(call(&breaker, &Ok(())), Some(false));
    assert_eq!(gauge(&telemetry), "0");
}

#[tokio::test(start_paused = true)]
async fn while_the_probe_asks_the_others_wait_for_what_it_says_but_not_for_long() {
    let (breakers, _telemetry) = breakers();
    let breaker = breakers.of(None);
    assert_eq!(call(&breaker, &limited(1)), Some(false));
    let before = Instant::now();
    assert!(breaker.pass(&host()).await.is_err());
    assert_eq!(before.elapsed(), Duration::ZERO, "nobody waits for an upstream that is left alone");
    advance(1).await;
    let probe = breaker.pass(&host()).await.unwrap();
    assert!(breaker.pass(&host()).await.is_err());
    assert_eq!(before.elapsed(), Duration::from_secs(1) + BREAKER_PROBE_PATIENCE);
    let host = host();
    let concluding = async { probe.conclude(&Ok::<_, UpstreamError>(())) };
    let (first, second, ()) = tokio::join!(breaker.pass(&host), breaker.pass(&host), concluding);
    assert!(first.is_ok_and(|pass| !pass.is_probe()) && second.is_ok_and(|pass| !pass.is_probe()));
}

#[tokio::test(start_paused = true)]
async fn a_row_of_failures_opens_it_for_pauses_that_double_up_to_a_bound() {
    let (breakers, _telemetry) = breakers();
    let breaker = breakers.of(None);
    for _ in 1..BREAKER_FAILURES {
        assert_eq!(call(&breaker, &failed()), Some(false));
    }
    assert_eq!(call(&breaker, &Ok(())), Some(false), "one short of a row, and a success ends the row");
    for _ in 0..BREAKER_FAILURES {
        assert_eq!(call(&breaker, &failed()), Some(false));
    }
    let mut pause = BREAKER_PAUSE.0;
    while pause < BREAKER_PAUSE.1.saturating_mul(2) {
        let bounded = pause.min(BREAKER_PAUSE.1);
        let error = breaker.admit(&host()).unwrap_err();
        let expected = matches!(&error, UpstreamError::Resting { retry_after, .. } if *retry_after == bounded);
        assert!(expected, "{error:?} {bounded:?}");
        assert!(error.to_string().contains("no connection can be made"), "{error}");
        tokio::time::advance(bounded.checked_sub(Duration::from_millis(1)).unwrap()).await;
        assert_eq!(call(&breaker, &Ok(())), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(call(&breaker, &failed()), Some(true));
        pause *= 2;
    }
    tokio::time::advance(BREAKER_PAUSE.1).await;
    assert_eq!(call(&breaker, &Ok(())), Some(true));
    assert_eq!(call(&breaker, &failed()), Some(false), "the row begins anew");
    assert!(breaker.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_given_up_at_once_makes_room_for_the_next_and_one_that_waited_has_failed() {
    let (breakers, _telemetry) = breakers();
    let breaker = breakers.of(None);
    assert_eq!(call(&breaker, &limited(1)), Some(false));
    advance(1).await;
    drop(breaker.admit(&host()).unwrap());
    let probe = breaker.admit(&host()).unwrap();
    assert!(probe.is_probe());
    tokio::time::advance(STALE_SOFT_DEADLINE).await;
    drop(probe);
    assert!(matches!(breaker.admit(&host()), Err(UpstreamError::Resting { .. })));
}

#[test]
fn what_answers_is_not_away() {
    let answers = [
        UpstreamError::NotFound { upstream: host() },
        UpstreamError::Refused { upstream: host(), status: 401 },
        UpstreamError::Bad { upstream: host(), reason: "protocol" },
        UpstreamError::Failed { upstream: host(), status: 500, retry_after: None },
        UpstreamError::Failed { upstream: host(), status: 501, retry_after: None },
    ];
    for error in answers {
        assert!(matches!(Outcome::of(&Err::<(), _>(error.clone())), Outcome::Answered), "{error:?}");
    }
    for status in [502, 503, 504] {
        let error = UpstreamError::Failed { upstream: host(), status, retry_after: None };
        assert!(matches!(Outcome::of(&Err::<(), _>(error)), Outcome::Failed(_)), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_credential_has_a_breaker_of_its_own_and_one_that_is_forgotten_is_not_open() {
    let (breakers, telemetry) = breakers();
    let (one, other) = (Some(Digest::sha256(b"one")), Some(Digest::sha256(b"other")));
    assert_eq!(call(&breakers.of(one), &limited(300)), Some(false));
    assert_eq!(call(&breakers.of(one), &Ok(())), None);
    assert_eq!(call(&breakers.of(other), &Ok(())), Some(false));
    assert_eq!(call(&breakers.of(None), &Ok(())), Some(false));
    assert_eq!(gauge(&telemetry), "2");
    drop(breakers);
    assert_eq!(gauge(&telemetry), "0");
}

/// Nobody waits for a probe where there is somebody else to ask.
#[tokio::test(start_paused = true)]
async fn where_another_endpoint_stands_behind_one_call_probes_and_none_waits_for_it() {
    for (manners, waits) in [(ALONE, true), (Manners { probe_patience: Duration::ZERO, ..ALONE }, false)] {
        let board = Board::new(host(), Telemetry::new(&[host()]));
        let breaker = Breakers::new(Arc::new(board), manners).of(None);
        call(&breaker, &limited(1));
        advance(1).await;
        let probe = breaker.pass(&host()).await.unwrap();
        assert!(probe.is_probe());
        let began = Instant::now();
        assert!(breaker.pass(&host()).await.is_err());
        assert_eq!(began.elapsed() >= BREAKER_PROBE_PATIENCE, waits, "{:?}", began.elapsed());
    }
}
