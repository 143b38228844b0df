//! Credential helpers (docker-credential-helpers): programs that keep passwords.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use super::{Credential, CredentialError, Secret};
use crate::limits::{CREDENTIAL_BYTES_MAX, CREDENTIAL_HELPER};
use crate::oci::json;

/// Asks `docker-credential-<name> get`; `Ok(None)`: it has nothing for that server.
pub(super) async fn ask(name: &str, server: &str) -> Result<Option<Credential>, CredentialError> {
    check_name(name)?;
    let mut command = Command::new(format!("docker-credential-{name}"));
    command.arg("get");
    converse(command, server).await
}

/// Tells a helper the server's name and reads its answer.
///
/// The process ends with the future: when the time has passed, or when nobody waits any more.
async fn converse(mut command: Command, server: &str) -> Result<Option<Credential>, CredentialError> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| CredentialError::HelperMissing(error.kind()))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(CredentialError::HelperFailed);
    };
    let conversation = async {
        // A helper may answer without reading; what counts is its answer.
        let written = stdin.write_all(server.as_bytes()).await;
        drop(stdin);
        let mut answer = Vec::new();
        let read = stdout.take(CREDENTIAL_BYTES_MAX + 1).read_to_end(&mut answer).await;
        let status = child.wait().await;
        (written, read, status, answer)
    };
    let (_, read, status, answer) =
        tokio::time::timeout(CREDENTIAL_HELPER, conversation).await.map_err(|_| CredentialError::HelperTimeout)?;
    let (Ok(length), Ok(status)) = (read, status) else { return Err(CredentialError::HelperFailed) };
    if u64::try_from(length).map_or(true, |length| length > CREDENTIAL_BYTES_MAX) {
        return Err(CredentialError::HelperFailed);
    }
    helper_answer(status.success(), &answer)
}

/// Reads the answer of a helper (docker-credential-helpers, "get").
fn helper_answer(success: bool, answer: &[u8]) -> Result<Option<Credential>, CredentialError> {
    if !success {
        let text = String::from_utf8_lossy(answer);
        let nothing = text.contains("credentials not found in native keychain");
        return if nothing { Ok(None) } else { Err(CredentialError::HelperFailed) };
    }
    let document = json::parse(answer).map_err(|_| CredentialError::HelperFailed)?;
    let field = |key: &str| document.get(key).and_then(Value::as_str).map(str::to_owned);
    let (Some(username), Some(secret)) = (field("Username"), field("Secret")) else {
        return Err(CredentialError::HelperFailed);
    };
    Ok(Some(match username.as_str() {
        "<token>" => Credential::IdentityToken(Secret::new(secret)),
        _ => Credential::password(username, secret),
    }))
}

/// A helper's name becomes part of a program's name, never of a path.
pub(super) fn check_name(name: &str) -> Result<(), CredentialError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !name.is_empty() && name.bytes().all(plain) { Ok(()) } else { Err(CredentialError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_has_an_answer_nothing_or_fails() {
        let answer = br#"{"ServerURL":"a","Username":"u","Secret":"s"}"#;
        assert_eq!(helper_answer(true, answer), Ok(Some(Credential::password("u".to_owned(), "s".to_owned()))));
        let token = br#"{"Username":"<token>","Secret":"s"}"#;
        assert_eq!(helper_answer(true, token), Ok(Some(Credential::IdentityToken(Secret::new("s".to_owned())))));
        assert_eq!(helper_answer(false, b"credentials not found in native keychain\n"), Ok(None));
        assert_eq!(helper_answer(false, b"locked"), Err(CredentialError::HelperFailed));
        assert_eq!(helper_answer(true, b"{}"), Err(CredentialError::HelperFailed));
    }

    #[tokio::test]
    async fn a_helper_that_is_not_there_is_an_error_and_no_path() {
        assert!(matches!(ask("sealgate-none", "a").await, Err(CredentialError::HelperMissing(_))));
        for name in ["", "../x", "a/b", "a b"] {
            assert_eq!(ask(name, "a").await, Err(CredentialError::Malformed), "{name}");
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_helper_is_told_the_server_and_heard() {
        let script = r#"read server; printf '{"Username":"u","Secret":"%s"}' "$server""#;
        let expected = Credential::password("u".to_owned(), "https://index.docker.io/v1/".to_owned());
        assert_eq!(converse(shell(script), "https://index.docker.io/v1/").await, Ok(Some(expected)));
        let deaf = r#"printf '{"Username":"u","Secret":"s"}'"#;
        assert!(converse(shell(deaf), "a").await.unwrap().is_some(), "it need not read to answer");
        assert_eq!(converse(shell("exit 1"), "a").await, Err(CredentialError::HelperFailed));
        let nothing = "echo credentials not found in native keychain; exit 1";
        assert_eq!(converse(shell(nothing), "a").await, Ok(None));
    }

    #[tokio::test]
    async fn a_helper_that_says_too_much_is_stopped() {
        assert_eq!(
            converse(shell("while :; do echo aaaaaaaaaaaaaaaa; done"), "a").await,
            Err(CredentialError::HelperFailed)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_says_nothing_is_stopped() {
        assert_eq!(converse(shell("exec sleep 1000"), "a").await, Err(CredentialError::HelperTimeout));
    }
}
