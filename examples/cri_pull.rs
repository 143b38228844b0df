//! Pulls an image by the kubelet's interface (CRI), to see what a kubelet would be told.
//!
//! ```text
//! cargo run --example cri_pull -- /run/containerd/containerd.sock docker.io/library/alpine:3.20
//! ```
//!
//! One gRPC call, `runtime.v1.ImageService/PullImage`, written out by hand: the two messages have one field each that matters here.
#![expect(clippy::print_stdout, clippy::unwrap_used, clippy::panic, reason = "an example stops where it cannot go on")]

use std::process::ExitCode;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::UnixStream;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(socket), Some(image)) = (arguments.next(), arguments.next()) else { panic!("cri_pull SOCKET IMAGE") };
    let stream = UnixStream::connect(&socket).await.unwrap_or_else(|error| panic!("{socket}: {error}"));
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    // The connection does the work of the call; if it ends first, the call never comes.
    tokio::select! {
        answer = pull(sender, &image) => match answer {
            Ok(reference) => {
                println!("pulled {reference}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                println!("{error}");
                ExitCode::FAILURE
            }
        },
        ended = connection => panic!("the connection ended: {ended:?}"),
    }
}

/// Calls `PullImage`; gives the image's reference at the runtime, or the error as a kubelet would write it.
async fn pull(sender: SendRequest<Bytes>, image: &str) -> Result<String, String> {
    let mut sender = sender.ready().await.unwrap();
    let request = Request::post("http://localhost/runtime.v1.ImageService/PullImage")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut body) = sender.send_request(request, false).unwrap();
    // PullImageRequest { image: ImageSpec { image } }
    let message = string_field(&string_field(image.as_bytes()));
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    body.send_data([&[0], length.as_slice(), &message].concat().into(), true).unwrap();

    let response = response.await.unwrap();
    let headers = response.headers().clone();
    let mut stream = response.into_body();
    let mut answer = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk.unwrap();
        stream.flow_control().release_capacity(chunk.len()).unwrap();
        answer.extend_from_slice(&chunk);
    }
    // An answer without a body has its status in the headers.
    let trailers = stream.trailers().await.unwrap().unwrap_or(headers);
    let text = |name| trailers.get(name).map_or("", |value| value.to_str().unwrap());
    match text("grpc-status") {
        // PullImageResponse { image_ref }: five bytes of frame, tag and length of the one field.
        "0" => Ok(String::from_utf8_lossy(answer.get(7..).unwrap_or_default()).into_owned()),
        code => Err(format!("rpc error: code = {code} desc = {}", percent_decoded(text("grpc-message")))),
    }
}

/// Field 1 of a protobuf message, of type string or message.
fn string_field(content: &[u8]) -> Vec<u8> {
    let mut length = content.len();
    let mut field = vec![0x0a];
    while length >= 0x80 {
        field.push(u8::try_from(length % 0x80).unwrap() | 0x80);
        length /= 0x80;
    }
    field.push(u8::try_from(length).unwrap());
    [&field, content].concat()
}

/// gRPC writes everything but printable ASCII in its message as `%XX`.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let byte =
            after.first_chunk::<2>().and_then(|digits| hex::decode(digits).ok()).and_then(|byte| byte.first().copied());
        match (first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            (other, _) => {
                bytes.push(*other);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
