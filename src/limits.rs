//! Every bound of the product: its number, its unit, its reason.
//!
//! Nothing that comes from a client, an upstream, a file or a signature is read, kept, looped over or waited for
//! without one of these. A bound is inclusive: exactly this much passes, one more is refused.

use std::time::Duration;

/// Bytes in one KiB.
pub const KIB: u64 = 1024;
/// Bytes in one MiB.
pub const MIB: u64 = 1024 * KIB;
/// Bytes in one GiB.
pub const GIB: u64 = 1024 * MIB;

// ---- names (distribution-spec v1.1, "Pulling manifests") ----

/// Bytes of `host/name`: the distribution-spec asks clients to keep to 255.
pub const REPOSITORY_BYTES_MAX: usize = 255;
/// Bytes of a tag: the distribution-spec's grammar.
pub const TAG_BYTES_MAX: usize = 128;

// ---- manifests and other JSON ----

/// Bytes of a manifest, an index or a page of referrers: the size every registry must accept.
pub const MANIFEST_BYTES_MAX: u64 = 4 * MIB;
/// Nesting of JSON from outside.
pub const JSON_DEPTH_MAX: usize = 32;
/// Values and keys in one JSON document from outside.
pub const JSON_TOKENS_MAX: usize = 100_000;
/// Largest size a descriptor may state: integers above lose precision in JSON readers.
pub const DESCRIPTOR_SIZE_MAX: u64 = 1 << 53;
/// Layers in one image manifest.
pub const LAYERS_MAX: usize = 1024;
/// Children in one index.
pub const INDEX_CHILDREN_MAX: usize = 256;
/// Nesting of indexes.
pub const INDEX_DEPTH_MAX: usize = 4;
/// Platform children looked at to decide about an index that has no signature of its own.
pub const CHILDREN_EXAMINED_MAX: usize = 32;

// ---- configuration ----

/// Bytes of a configuration, policy, key or certificate file.
pub const CONFIG_FILE_BYTES_MAX: u64 = MIB;
/// Endpoints of one upstream besides the first.
pub const FALLBACKS_MAX: usize = 8;
/// Patterns of tags with a life of their own, of one upstream.
pub const TAG_PATTERNS_MAX: usize = 256;
/// Bytes of a glob over images: longer than any name with a digest.
pub const GLOB_BYTES_MAX: usize = 512;
/// Nesting of YAML, aliases followed.
pub const YAML_DEPTH_MAX: usize = 32;
/// Values and keys in one YAML file, aliases followed.
pub const YAML_NODES_MAX: usize = 100_000;
/// Bytes of text in one YAML file, aliases followed.
pub const YAML_EXPANDED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Files of a directory that a configuration names.
pub const CONFIG_DIRECTORY_FILES_MAX: usize = 256;
/// Longest duration that a configuration may state.
pub const CONFIG_DURATION_MAX: Duration = Duration::from_hours(365 * 24);
/// Largest size that a configuration may state, in bytes.
pub const CONFIG_SIZE_MAX: u64 = 1024 * 1024 * GIB;
/// Smallest blob cache that makes sense, in bytes.
pub const CACHE_BYTES_MIN: u64 = MIB;
/// Shortest and longest life of a verdict.
pub const VERDICT_TTL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(30 * 24));
/// Time between two looks at the configuration's files. A change counts once two looks agree, so that a file that is
/// being written is not read half.
pub const CONFIG_POLL: Duration = Duration::from_secs(1);
/// Files that one pattern of `policy.cluster_image_policies` may name.
pub const POLICY_FILES_MAX: usize = 256;
/// Reloads that wait for the one that runs.
pub const RELOAD_QUEUE: usize = 8;

// ---- trust root ----

/// Age of a trust root from which it is warned of: keys are added a few times a year.
pub const TRUST_ROOT_AGE_WARNED: Duration = Duration::from_hours(180 * 24);
/// Time before the last window of a kind ends from which it is warned of.
pub const TRUST_WINDOW_WARNED: Duration = Duration::from_hours(30 * 24);
/// An exemption that ends within this is warned about: long enough for its owner to act.
pub const EXEMPTION_END_WARNED: Duration = Duration::from_hours(14 * 24);
/// Bytes of one TUF root; the Sigstore project's has 6 KiB.
pub const TUF_ROOT_BYTES_MAX: u64 = 512 * KIB;
/// Bytes of a TUF timestamp, which names one file.
pub const TUF_TIMESTAMP_BYTES_MAX: u64 = 16 * KIB;
/// Bytes of a TUF snapshot.
pub const TUF_SNAPSHOT_BYTES_MAX: u64 = 2 * MIB;
/// Bytes of the TUF targets role.
pub const TUF_TARGETS_BYTES_MAX: u64 = 4 * MIB;
/// New TUF roots followed in one refresh; a repository has a few a year.
pub const TUF_ROTATIONS_MAX: usize = 64;
/// Bytes of everything that TUF refreshes keep.
pub const TUF_STATE_BYTES_MAX: u64 = 16 * MIB;
/// Time one TUF refresh may take.
pub const TUF_REFRESH: Duration = Duration::from_mins(2);
/// Shortest and longest time between two refreshes of a running mirror.
pub const TUF_INTERVAL: (Duration, Duration) = (Duration::from_hours(1), Duration::from_hours(30 * 24));
/// Time until a refresh that failed is tried again, unless the interval is shorter.
pub const TUF_RETRY: Duration = Duration::from_hours(1);

// ---- signature material ----

/// Bytes of one signature payload or bundle.
pub const SIGNATURE_BYTES_MAX: u64 = MIB;
/// Bytes of one annotation of a signature: a log entry or a certificate chain takes a few KiB.
pub const ANNOTATION_BYTES_MAX: u64 = 256 * KIB;
/// Bytes of signature material read for one verdict.
pub const MATERIAL_BYTES_MAX: u64 = 32 * MIB;
/// Bytes of signature material held at once for all verdicts of one level of nesting together, beyond what is not counted: four
/// of the largest.
pub const MATERIAL_IN_FLIGHT_BYTES_MAX: u64 = 128 * MIB;
/// Bytes of a verdict's signature material that are not counted there: nearly all signatures are smaller. With as many verdicts
/// as may be reached at once it is less than what is counted. Nor are the manifests that list them.
pub const MATERIAL_UNCOUNTED_BYTES: u64 = 64 * KIB;
/// Bytes of signature material that is kept of a denied image, so that a verdict under another policy can be foretold.
pub const DENIED_MATERIAL_BYTES_MAX: u64 = 256 * KIB;
/// Candidates (signature layers, bundles) examined for one verdict.
pub const CANDIDATES_MAX: usize = 64;
/// Packets of one OpenPGP message: a signed one has three, and some programs add markers.
pub const OPENPGP_PACKETS_MAX: usize = 8;
/// Fewest bits of an RSA or DSA key in an OpenPGP ring that may sign.
pub const OPENPGP_RSA_BITS_MIN: u16 = 2048;
/// Bytes of one layer or config of a signature artefact that passes without a verdict.
pub const ARTEFACT_BLOB_BYTES_MAX: u64 = 8 * MIB;
/// Layers of a signature artefact that passes without a verdict.
pub const ARTEFACT_LAYERS_MAX: usize = 64;
/// Bytes of what one verdict says was looked at; an index keeps it together with its list of children and material.
pub const EVIDENCE_DOCUMENT_BYTES_MAX: usize = 768 * 1024;
/// Keys in the log entries of a refused candidate that are tried, for saying which key made it.
pub const NAMED_KEYS_MAX: usize = 4;
/// Signature equations computed for one denial to say which key made what was refused.
pub const FINDING_CHECKS_MAX: usize = 128;
/// Certificates in one chain, the leaf included.
pub const CHAIN_CERTIFICATES_MAX: usize = 8;
/// Bytes of an identity that a pattern or an equality is asked of.
pub const IDENTITY_BYTES_MAX: usize = 4096;
/// Log entries in one bundle, as in sigstore-go (CVE-2024-45395).
pub const BUNDLE_LOG_ENTRIES_MAX: usize = 32;
/// Signatures under one checkpoint: the log's, and those of its witnesses. All that bear a log's hint are tried.
pub const CHECKPOINT_SIGNATURES_MAX: usize = 32;
/// RFC 3161 timestamps in one bundle, as in sigstore-go.
pub const BUNDLE_TIMESTAMPS_MAX: usize = 32;
/// Subjects of one in-toto statement.
pub const STATEMENT_SUBJECTS_MAX: usize = 1024;
/// Digests of one subject of a statement.
pub const SUBJECT_DIGESTS_MAX: usize = 32;
/// Bytes of a regular expression that identities are matched against.
pub const PATTERN_BYTES_MAX: usize = 4096;
/// Bytes of memory that such an expression may compile to.
pub const PATTERN_COMPILED_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one Rego module of a ClusterImagePolicy.
pub const REGO_MODULE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of what a Rego policy looks at: a statement, or who signed.
pub const REGO_INPUT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Time of one evaluation of a Rego policy.
pub const REGO_TIME_MAX: Duration = Duration::from_millis(500);
/// Bytes of one signature artefact's config and layers together: they are read whole before its manifest is served.
pub const ARTEFACT_BYTES_MAX: u64 = 64 * MIB;
/// Blobs fetched at once for one verdict or one artefact.
pub const MATERIAL_CONCURRENCY: usize = 8;
/// Threads that verify; fewer where there are fewer cores, so that one is left to serving.
pub const VERIFY_WORKERS_MAX: usize = 4;
/// How much less urgent than serving they are, in steps of `nice(2)`.
pub const VERIFY_WORKERS_NICE: i32 = 10;
/// Verifications that wait for one of these threads: some seconds of work.
pub const VERIFY_QUEUE: usize = 1024;
/// Time one verdict may take, discovery included.
pub const VERDICT_BUDGET: Duration = Duration::from_secs(10);
/// Time that discovery may take of it, so that what one place has can still be judged when another does not answer.
pub const DISCOVERY_BUDGET: Duration = Duration::from_secs(8);
/// Time that discovery may take where the decision does not depend on it, but its warnings or the report do.
pub const REPORT_DISCOVERY_BUDGET: Duration = Duration::from_secs(3);
/// Reports on who signed that look for signatures at once: fewer than an upstream has turns, since no answer depends on them.
pub const REPORTS_AT_ONCE: usize = 2;
/// Bytes, roughly, of signature material that reports hold on to while they wait; a report counts 64 KiB at least.
pub const REPORT_QUEUE_BYTES_MAX: u64 = 64 * MIB;

// ---- cold work: what a request needs that is not here yet ----

/// Of one client at once: pulls of new images, verifications. A node starts a dozen containers at a time.
pub const COLD_OF_CLIENT_MAX: usize = 96;
/// Of one upstream at once; its requests are fewer, and most wait for their turn there.
pub const COLD_OF_UPSTREAM_MAX: usize = 128;
/// Of one upstream at once, whatever the others do: a slow one does not take all of them.
pub const COLD_OWN: usize = 2;
/// Beyond those, of all upstreams together.
pub const COLD_SHARED_MAX: usize = 256;
/// Waiting, for one client or one upstream; more are told to come again.
pub const COLD_WAITING_OF_ONE_MAX: usize = 128;
/// Waiting in all. With those that run it is less than the requests in flight, so that what is warm always finds room.
pub const COLD_WAITING_MAX: usize = 256;
/// Time that one waits.
pub const COLD_QUEUE: Duration = Duration::from_secs(10);
/// Things never seen before that one client may ask for in a minute; as many may come at once.
pub const COLD_PULLS_PER_MINUTE: u32 = 600;
/// Largest such number that a configuration may state.
pub const COLD_PULLS_PER_MINUTE_MAX: u32 = 1_000_000;
/// Clients whose rate is remembered.
pub const COLD_CLIENTS_MAX: usize = 10_000;
/// Transfers of blobs that are not here, begun by one client and under way at once: fewer than an upstream's, so that others
/// find some.
pub const COLD_TRANSFERS_OF_CLIENT_MAX: usize = 16;
/// Time that one waits for its client's others.
pub const COLD_TRANSFERS_QUEUE: Duration = Duration::from_mins(2);

// ---- referrers and tag lists ----

/// Pages of referrers followed.
pub const REFERRERS_PAGES_MAX: usize = 10;
/// Referrers kept of one subject.
pub const REFERRERS_MAX: usize = 256;
/// Bytes of a referrer's manifest that is looked into for signatures: real ones take 1 KiB.
pub const REFERRER_BYTES_MAX: u64 = 256 * KIB;
/// Tags in one page of a tag list, and what is asked when a client names no number.
pub const TAGS_PAGE_MAX: usize = 1000;
/// Bytes of one page of tags or of an upstream's error body that is read.
pub const TAGS_BODY_BYTES_MAX: u64 = 4 * MIB;

// ---- upstream ----

/// Time to connect, TLS included.
pub const UPSTREAM_CONNECT: Duration = Duration::from_secs(5);
/// Time from request to response headers.
pub const UPSTREAM_FIRST_BYTE: Duration = Duration::from_secs(10);
/// Time for a whole manifest, page or token.
pub const UPSTREAM_MANIFEST_TOTAL: Duration = Duration::from_secs(30);
/// Time without a byte after which a transfer has stalled.
pub const UPSTREAM_IDLE: Duration = Duration::from_secs(30);
/// Bytes that must arrive within [`UPSTREAM_IDLE`]: a transfer slower than 1 KiB/s has stalled too.
pub const UPSTREAM_PROGRESS_BYTES: u64 = 30 * KIB;
/// Attempts beyond the first for connect errors and 5xx.
pub const UPSTREAM_RETRIES_MAX: usize = 2;
/// Pause before the first repetition; doubles, and up to as much again is added at random.
pub const UPSTREAM_RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Redirects followed by hand.
pub const REDIRECTS_MAX: usize = 3;
/// Concurrent requests to one upstream.
pub const UPSTREAM_CONCURRENCY: usize = 32;
/// Concurrent blob transfers of one upstream: fewer than all requests, so that manifests never wait for blobs.
pub const UPSTREAM_BLOB_CONCURRENCY: usize = 24;
/// Time a blob waits for its turn at an upstream.
pub const UPSTREAM_BLOB_QUEUE: Duration = Duration::from_mins(2);
/// Of an upstream's blob transfers, those that go at a client's pace: what is not cached, and ranges passed on.
pub const TRANSFERS_PACED_MAX: usize = 12;
/// Of an upstream's blob transfers, those that it has whatever the others do: what one client asks for at once.
pub const TRANSFERS_OWN: usize = 4;
/// Blob transfers of all upstreams together, beyond those that each has for itself.
pub const TRANSFERS_MAX: usize = 192;
/// Blob transfers that wait for one upstream, of each kind; more are answered at once that it is busy.
pub const TRANSFERS_WAITING_MAX: usize = 256;
/// Time a blob transfer waits for its turn.
pub const TRANSFER_QUEUE: Duration = Duration::from_mins(1);
/// Bytes of a URL that an upstream names: realm, redirect, next page.
pub const UPSTREAM_URL_BYTES_MAX: usize = 8 * 1024;
/// Lookaside servers of one upstream whose connections are kept.
pub const LOOKASIDE_CLIENTS_MAX: usize = 8;
/// Bytes of a token response.
pub const TOKEN_BYTES_MAX: u64 = MIB;
/// Bytes of upstream response headers.
pub const UPSTREAM_HEADER_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a `WWW-Authenticate` header.
pub const CHALLENGE_BYTES_MAX: usize = 4096;
/// Challenges in all `WWW-Authenticate` headers of one answer, and parameters of one challenge.
pub const CHALLENGE_PARTS_MAX: usize = 16;
/// Bytes of one token: it must fit into a request header.
pub const TOKEN_LENGTH_MAX: usize = 16 * 1024;
/// Shortest and longest time a token is kept, whatever the issuer says.
pub const TOKEN_LIFE: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));
/// Age below which a refused token means that access is refused; an older one is replaced first.
pub const TOKEN_FRESH: Duration = Duration::from_secs(10);
/// Time until a token whose renewal failed, and which is still good, is renewed again.
pub const TOKEN_RENEW_AGAIN: Duration = Duration::from_secs(10);
/// Tokens kept for one upstream.
pub const TOKENS_MAX: u64 = 10_000;
/// Time a credential from a file or helper is kept.
pub const CREDENTIAL_LIFE: Duration = Duration::from_mins(5);
/// Credential files and helpers of one upstream that are asked at once.
pub const CREDENTIAL_READERS: usize = 8;
/// Time that a failure to find a credential is kept.
pub const CREDENTIAL_FAILED: Duration = Duration::from_secs(5);
/// Age at which a refused credential is read again before giving up.
pub const CREDENTIAL_REREAD: Duration = Duration::from_secs(30);
/// Credentials of repository prefixes kept for one upstream.
pub const CREDENTIALS_MAX: u64 = 1000;
/// Time a credential helper may take.
pub const CREDENTIAL_HELPER: Duration = Duration::from_secs(10);
/// Bytes that a credential helper may answer.
pub const CREDENTIAL_BYTES_MAX: u64 = 64 * KIB;
/// Wait after a 429 that names no time.
pub const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(10);
/// Shortest and longest `Retry-After` that is believed.
pub const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Calls that fail in a row until an upstream is left alone.
pub const BREAKER_FAILURES: usize = 5;
/// Shortest and longest time that an upstream which fails is left alone; it doubles from the one to the other.
pub const BREAKER_PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));
/// Time that an endpoint may be silent until the next one of its upstream is asked beside it: longer than a healthy one takes,
/// and short enough for a pull that asks for one thing after the other.
pub const ENDPOINT_PATIENCE: Duration = Duration::from_secs(2);
/// How long others wait for the request that finds out whether an upstream is back: a healthy one has answered by then, and a
/// stale answer must not wait long for a sick one.
pub const BREAKER_PROBE_PATIENCE: Duration = Duration::from_millis(500);
/// What a client is told to wait while one request finds out whether an upstream is back.
pub const BREAKER_PROBE_WAIT: Duration = Duration::from_secs(1);
/// Time a missing thing is remembered.
pub const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(10);
/// Missing things remembered.
pub const NEGATIVE_ENTRIES_MAX: u64 = 10_000;
/// Tags that are asked about in the background at once, after they were served.
pub const REVALIDATIONS_MAX: usize = 64;
/// Time after which a stale tag is served although upstream may still answer.
pub const STALE_SOFT_DEADLINE: Duration = Duration::from_secs(2);

// ---- cache ----

/// Bytes at the end of a blob that wait until the digest matches.
pub const HOLD_BACK_BYTES: u64 = 64 * KIB;
/// Bytes read from a file or the network at once; no per-request buffer is larger.
pub const BLOB_CHUNK_BYTES: usize = 256 * 1024;
/// Bytes of a mapped file that are handed to the connection at once; they are counted as sent in such steps.
pub const MAPPED_FRAME_BYTES: usize = 1024 * 1024;
/// Buffers of that size that are kept for the next read; more are given back to the system.
pub const BLOB_BUFFERS_KEPT: usize = 32;
/// Resumptions of one broken transfer without [`FILL_RESUME_PROGRESS_BYTES`] in between.
pub const FILL_RESUMES_MAX: usize = 3;
/// Longest time that an upstream may ask for before a broken transfer goes on; readers wait meanwhile.
pub const FILL_RESUME_WAIT_MAX: Duration = Duration::from_secs(5);
/// Bytes after which a broken transfer counts as one that gets on: a large blob over a bad line breaks often.
pub const FILL_RESUME_PROGRESS_BYTES: u64 = 16 * MIB;
/// Time a fill goes on after its last reader left: who lost the connection comes back within it.
pub const FILL_ALONE_GRACE: Duration = Duration::from_secs(10);
/// Time in which the rest of a fill that nobody reads must be expected, at the rate so far.
pub const FILL_ALONE_REST: Duration = Duration::from_secs(30);
/// The same when half of it or more is there, and the longest that a fill goes on for nobody.
pub const FILL_ALONE: Duration = Duration::from_mins(5);
/// Time between two looks at whether a fill that nobody reads goes on.
pub const FILL_ALONE_LOOK: Duration = Duration::from_millis(250);
/// Bytes of one thing that is kept whole: a manifest, a page of referrers, a signature payload, a layer of an artefact.
pub const CONTENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Blobs that clients may have whole before the disk has them; the clients of more wait for it.
pub const UNSYNCED_FILLS_MAX: usize = 16;
/// Blobs put into place at a start that a killed process had whole.
pub const RESCUED_FILES_MAX: usize = 1000;
/// How long a start waits for that.
pub const RESCUE_WAIT: Duration = Duration::from_millis(300);
/// Bytes of such things that wait to be written to the disk; who brings more writes it himself.
pub const UNWRITTEN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How many such things wait.
pub const UNWRITTEN_FILES_MAX: usize = 1024;
/// Such things that are written together, each with an open file.
pub const UNWRITTEN_FILES_AT_ONCE: usize = 32;
/// Bytes of manifests and signature payloads kept in memory.
pub const HOT_BYTES_MAX: u64 = 64 * MIB;
/// Verdicts, grants and tags kept in memory, each.
pub const HOT_ENTRIES_MAX: u64 = 100_000;
/// Files in the cache; the least recently used goes when there are more. About 200 bytes of memory each.
pub const CACHE_FILES_MAX: usize = 500_000;
/// Blobs remembered as hashed whole by this process.
pub const VERIFIED_BLOBS_MAX: u64 = 100_000;
/// Files that were found wrong and are kept aside.
pub const QUARANTINE_FILES_MAX: usize = 16;
/// Bytes of all of them, and so of each.
pub const QUARANTINE_BYTES_MAX: u64 = 256 * MIB;
/// Shortest time between two passes that hash all cached files; zero is never.
pub const SCRUB_EVERY_MIN: Duration = Duration::from_hours(1);
/// Fewest bytes a second that such a pass may be bound to: slower ones would not come to an end.
pub const SCRUB_RATE_MIN: u64 = MIB;
/// Bytes between two looks at the free space of the disk during one transfer.
pub const FREE_SPACE_CHECK_BYTES: u64 = 64 * MIB;
/// Time between two rounds of the store's upkeep: times of last use, largest time seen, number of records.
pub const STORE_UPKEEP: Duration = Duration::from_mins(1);
/// Times of last use written to disk in one round.
pub const STORE_UPKEEP_FILES_MAX: usize = 10_000;
/// Bytes, roughly, of parsed manifests kept in memory.
pub const HOT_MANIFEST_BYTES_MAX: u64 = 32 * MIB;
/// Bytes, roughly, of signature material and referrers lists kept in memory, each.
pub const HOT_MATERIAL_BYTES_MAX: u64 = 16 * MIB;
/// Time after which grants that were kept are kept again, in case the store lost them.
pub const GRANTS_REFRESH: Duration = Duration::from_mins(5);
/// Time a referrers list is remembered.
pub const REFERRERS_TTL: Duration = Duration::from_secs(10);
/// Grants kept for one (repository, digest).
pub const GRANTS_PER_DIGEST_MAX: usize = 8;

// ---- verdict store (reference: design §9) ----

/// Bytes of one record's value; larger ones become files that are not always reclaimed.
pub const VERDICT_RECORD_BYTES_MAX: usize = 1024;
/// Records kept.
pub const VERDICT_RECORDS_MAX: usize = 1_000_000;
/// Time for the database to open before it is moved aside.
pub const VERDICT_STORE_OPEN: Duration = Duration::from_secs(30);
/// Time for one read before it counts as a miss.
pub const VERDICT_STORE_READ: Duration = on_a_busy_machine(Duration::from_millis(50));
/// Time for the lists that one admission adds to; without them memory knows less than the disk.
pub const GRANTS_READ: Duration = on_a_busy_machine(Duration::from_millis(500));
/// Writes waiting for the database; more are dropped and counted.
pub const VERDICT_STORE_QUEUE: usize = 4096;
/// Time for the database to flush and close.
pub const VERDICT_STORE_CLOSE: Duration = Duration::from_secs(5);
/// Time after a failure of the database until it is opened again.
pub const VERDICT_STORE_RETRY: Duration = Duration::from_mins(1);
/// Time for one page of the background look at all records.
pub const VERDICT_STORE_PAGE: Duration = Duration::from_secs(5);
/// Records in such a page.
pub const VERDICT_STORE_PAGE_RECORDS: usize = 256;
/// Time between two such looks, which remove what is too old.
pub const VERDICT_SWEEP: Duration = Duration::from_hours(1);
/// Time a verdict stays stored after its end: its material may let it be reached again offline, and it stays listed.
pub const VERDICT_RETENTION: Duration = Duration::from_hours(30 * 24);
/// Time a grant or tag pointer stays stored after it was last given; a media type four times as long.
pub const GRANT_RETENTION: Duration = Duration::from_hours(90 * 24);
/// Verdicts that can be listed, allows and denials in equal parts; the newest stay, expired ones too.
pub const VERDICT_HISTORY_MAX: usize = 10_000;
/// Bytes of a verdict's one line.
pub const VERDICT_TEXT_BYTES_MAX: usize = 250;
/// Bytes of one evidence file.
pub const EVIDENCE_BYTES_MAX: usize = 1024 * 1024;
/// Evidence files kept.
pub const EVIDENCE_FILES_MAX: u64 = 20_000;
/// Signature manifests named by one verdict.
pub const VERDICT_MATERIAL_MAX: usize = CANDIDATES_MAX;
/// How far time may step back behind the largest time seen before it counts as wrong.
pub const TIME_STEP_BACK: Duration = Duration::from_mins(5);
/// Verdicts in one page of the admin API.
pub const VERDICTS_PAGE_MAX: usize = 1000;

// ---- server ----

/// Request headers, in number.
pub const REQUEST_HEADERS_MAX: usize = 64;
/// Request headers, in bytes.
pub const REQUEST_HEADER_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a request's path and query.
pub const URI_BYTES_MAX: usize = 8 * 1024;
/// Time to the end of the request headers; also what a silent new connection gets.
pub const HEADER_READ: Duration = Duration::from_secs(10);
/// Time an idle kept-alive connection stays open.
pub const KEEP_ALIVE_IDLE: Duration = Duration::from_mins(1);
/// Time without write progress after which a connection is dropped.
pub const WRITE_IDLE: Duration = Duration::from_secs(30);
/// Time for a TLS handshake.
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections in all.
pub const CONNECTIONS_MAX: usize = 4096;
/// Connections of one client address.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 256;
/// Requests in flight.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 1024;
/// Requests in flight of one client address: with HTTP/2 a connection has many.
pub const REQUESTS_PER_ADDRESS_MAX: usize = 512;
/// Bytes of manifests in answers that have not gone out, in all: what slow readers can make us keep beside the caches.
pub const MANIFESTS_IN_FLIGHT_BYTES_MAX: u64 = 128 * MIB;
/// Bytes of a manifest that are not counted there: most have a few KiB.
pub const MANIFEST_UNCOUNTED_BYTES: usize = 64 * 1024;
/// Time that running transfers get after SIGTERM.
pub const DRAIN: Duration = Duration::from_secs(30);
/// Bytes of the one line that explains a refusal.
pub const REFUSAL_LINE_BYTES_MAX: usize = 250;
/// Bytes of a refused write's body that may be left unread on a connection that stays open.
pub const UNREAD_BODY_BYTES_MAX: u64 = 64 * KIB;
/// Time that a connection which we end is read on, so that its client sees our last answer.
pub const LINGER: Duration = Duration::from_secs(1);
/// Bytes read and thrown away in that time.
pub const LINGER_BYTES_MAX: usize = 256 * 1024;
/// Requests at once on one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 100;
/// Bytes of one HTTP/2 request's headers, decoded.
pub const HTTP2_HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// Time between pings on a quiet HTTP/2 connection, and what the peer gets to answer one.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Time for the answer to a ping.
pub const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);
/// What a client is told to wait after "don't know"; missing things are remembered for no longer than twice that.
pub const UNDECIDED_RETRY_AFTER: Duration = Duration::from_secs(5);
/// What a client is told to wait when too much is in flight.
pub const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Bytes of an answer of the admin API that the command line reads.
pub const ADMIN_ANSWER_BYTES_MAX: u64 = 64 * MIB;
/// Log lines that wait for a slow reader; more are dropped and counted.
pub const LOG_QUEUE: usize = 4096;
/// Bytes of a client's or upstream's text that a log field keeps.
pub const LOG_FIELD_BYTES_MAX: usize = 256;

// ---- admin listener ----

/// Connections to the admin listener: a few operators and a few scrapers.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// Life of a connection to the admin listener; a client opens another one.
pub const ADMIN_CONNECTION_LIFE: Duration = Duration::from_mins(1);
/// Time for one answer of the admin listener, and for its client to read it.
pub const ADMIN_REQUEST: Duration = Duration::from_secs(30);
/// Time without accepting after accepting failed, as it does without free descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Many tests at once make a machine slow; in a test a miss must mean that there is nothing.
const fn on_a_busy_machine(wait: Duration) -> Duration {
    if cfg!(any(test, feature = "testing")) { Duration::from_secs(10) } else { wait }
}
