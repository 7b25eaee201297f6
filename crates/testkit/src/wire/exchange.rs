//! One bidirectional stream of messages.

use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

/// Why a message did not come or go.
#[derive(Clone, Debug)]
pub enum WireError {
    /// None came in this time.
    Late(Duration),
    /// The server ended the stream with this status, or the connection broke.
    Refused(Status),
    /// The server ended the stream with OK.
    Ended,
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WireError::Late(within) => write!(f, "no message came within {within:?}"),
            WireError::Refused(status) => {
                write!(f, "the stream ended with {:?}: {}", status.code(), status.message())
            }
            WireError::Ended => f.write_str("the stream ended with OK"),
        }
    }
}

impl std::error::Error for WireError {}

/// An open stream. Dropping it resets it.
#[derive(Debug)]
pub struct Exchange<Request, Response> {
    requests: Option<mpsc::Sender<Request>>,
    responses: mpsc::Receiver<Result<Response, Status>>,
    /// Said once the stream has ended, again for each further question.
    end: Option<WireError>,
    // Moves the messages; ends with its owner.
    _mover: JoinSet<()>,
}

impl<Request, Response> Exchange<Request, Response>
where
    Request: prost::Message + Send + Sync + 'static,
    Response: prost::Message + Default + std::fmt::Debug + Send + 'static,
{
    pub(super) fn open(channel: Channel, token: Option<AsciiMetadataValue>, method: &str) -> Self {
        let path: PathAndQuery = method.parse().expect("the method is a path");
        let (requests, outgoing) = mpsc::channel(16);
        // A single place: a client that does not read makes the server feel it.
        let (incoming, responses) = mpsc::channel(1);
        let mut mover = JoinSet::new();
        mover.spawn(async move {
            // The call returns only once the server has sent its headers, which it may do together with its first
            // message: so requests have to flow before.
            let mut client = Grpc::new(channel).max_decoding_message_size(usize::MAX);
            let opened = async {
                client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
                let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
                if let Some(token) = token {
                    request.metadata_mut().insert("authorization", token);
                }
                client.streaming(request, path, ProstCodec::<Request, Response>::default()).await
            };
            let mut stream = match opened.await {
                Ok(response) => response.into_inner(),
                Err(status) => return drop(incoming.send(Err(status)).await),
            };
            loop {
                let message = match stream.message().await {
                    Ok(Some(message)) => Ok(message),
                    Ok(None) => return,
                    Err(status) => Err(status),
                };
                let is_last = message.is_err();
                if incoming.send(message).await.is_err() || is_last {
                    return;
                }
            }
        });
        Exchange { requests: Some(requests), responses, end: None, _mover: mover }
    }

    /// Sends a message. That the server has ended the stream is seen by [`Exchange::next`], not here.
    pub async fn send(&mut self, request: Request) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(request).await;
        }
    }

    /// Says that no more messages will be sent; the server can still send.
    pub fn finish(&mut self) {
        self.requests = None;
    }

    /// The next message.
    ///
    /// # Errors
    /// If none comes `within` this time, or the stream has ended.
    pub async fn next(&mut self, within: Duration) -> Result<Response, WireError> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let end = match tokio::time::timeout(within, self.responses.recv()).await {
            Ok(Some(Ok(response))) => return Ok(response),
            Ok(Some(Err(status))) => WireError::Refused(status),
            Ok(None) => WireError::Ended,
            Err(_) => return Err(WireError::Late(within)),
        };
        self.end = Some(end.clone());
        Err(end)
    }

    /// Checks that nothing at all comes for so long: neither a message nor the end of the stream.
    ///
    /// # Errors
    /// What came instead.
    pub async fn silence(&mut self, length: Duration) -> Result<(), String> {
        match self.next(length).await {
            Err(WireError::Late(_)) => Ok(()),
            Ok(response) => Err(format!("{response:?}")),
            Err(end @ (WireError::Refused(_) | WireError::Ended)) => Err(end.to_string()),
        }
    }
}
