//! Intents over gRPC.

mod messages;

use std::pin::Pin;

use futures_util::Stream;
use proto::delivery;
use proto::delivery::intents_server::{Intents as Service, IntentsServer};
use rollout::{ActError, ActionError};
use tonic::{Request, Response, Status};
use world::{Application, Deletion, ObjectRef, Refusal, Submission};

use super::{IntentFilter, Intents, kind_named};
use crate::admin::audit::Deed;
use crate::admin::rollouts;
use crate::{Stopped, view};

/// A document has fewer bytes, as over HTTP.
const MAX_REQUEST_BYTES: usize = 2 << 20;

/// Names of Kubernetes have up to 253 bytes, and those of runs a number more.
const LONGEST_NAME: usize = 300;

/// Serves `pointsman.delivery.v1alpha1.Intents`.
#[derive(Clone, Debug)]
pub(crate) struct IntentService {
    intents: Intents,
}

impl IntentService {
    /// The service, ready to be routed to.
    pub(crate) fn new(intents: Intents) -> IntentsServer<Self> {
        IntentsServer::new(Self { intents }).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    async fn submit(&self, deed: &Deed, submission: Submission) -> Result<world::Acceptance, Status> {
        deed.is_submission(&submission);
        match self.intents.submit(submission).await {
            Ok(acceptance) => {
                deed.has_taken(&acceptance);
                Ok(acceptance)
            }
            Err(refusal) => {
                deed.is_refused(&refusal.to_string());
                Err(refused(&refusal))
            }
        }
    }

    /// The name by which the run is meant that the caller has seen.
    async fn target(&self, namespace: &str, name: &str, expected_run: String) -> Result<String, Status> {
        if expected_run.is_empty() || expected_run == name {
            return Ok(name.to_owned());
        }
        let rollout = self.intents.rollouts.one(namespace, &expected_run).await.map_err(unavailable)?;
        match rollout {
            // Asked by the name of the run: whether it is the current one is for those to say who act.
            Some(rollout) if rollout.intent == name || rollout.run == name => Ok(expected_run),
            Some(_) | None => {
                let error = format!("\"{namespace}/{name}\" has no run \"{expected_run}\"");
                Err(Status::aborted(error))
            }
        }
    }
}

/// What the client of `Watch` reads.
type Events = Pin<Box<dyn Stream<Item = Result<delivery::WatchResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Service for IntentService {
    type WatchStream = Events;

    async fn apply(
        &self,
        request: Request<delivery::ApplyRequest>,
    ) -> Result<Response<delivery::ApplyResponse>, Status> {
        let deed = deed(&request);
        let delivery::ApplyRequest { document, expected_generation, dry_run, actor, reason } = request.into_inner();
        deed.by(&actor, &reason);
        let application = Application { document, only: None, expected_generation, is_dry_run: dry_run };
        let acceptance = self.submit(&deed, Submission::Apply(application)).await?;
        Ok(Response::new(delivery::ApplyResponse {
            objects: acceptance.objects.iter().map(messages::taken).collect(),
            warnings: acceptance.warnings.iter().map(|problem| messages::problem(problem.into())).collect(),
        }))
    }

    async fn get(&self, request: Request<delivery::GetRequest>) -> Result<Response<delivery::Object>, Status> {
        let reference = reference(request.into_inner().reference)?;
        match self.intents.one(&reference).await.map_err(unavailable)? {
            Some(object) => Ok(Response::new(messages::object(object))),
            None => Err(refused(&Refusal::NotFound(reference))),
        }
    }

    async fn list(&self, request: Request<delivery::ListRequest>) -> Result<Response<delivery::ListResponse>, Status> {
        let delivery::ListRequest { kind, namespace } = request.into_inner();
        let filter = filter(&kind, namespace, String::new())?;
        let view::Intents { objects } = self.intents.list(&filter).await.map_err(unavailable)?;
        Ok(Response::new(delivery::ListResponse { objects: objects.into_iter().map(messages::object).collect() }))
    }

    async fn watch(&self, request: Request<delivery::WatchRequest>) -> Result<Response<Events>, Status> {
        let delivery::WatchRequest { kind, namespace, name } = request.into_inner();
        let feed = self.intents.watch(filter(&kind, namespace, name)?);
        let events =
            futures_util::stream::unfold(feed, async |mut feed| Some((Ok(messages::event(feed.next().await?)), feed)));
        Ok(Response::new(Box::pin(events)))
    }

    async fn act(&self, request: Request<delivery::ActRequest>) -> Result<Response<delivery::Rollout>, Status> {
        let deed = deed(&request);
        let verb = request.get_ref().verb();
        let delivery::ActRequest {
            namespace,
            name,
            revision,
            variant,
            id,
            expected_run,
            expected_step,
            actor,
            reason,
            ..
        } = request.into_inner();
        deed.by(&actor, &reason);
        short(&[("namespace", &namespace), ("name", &name), ("expected_run", &expected_run)])?;
        let verb = messages::verb(verb).ok_or_else(|| Status::invalid_argument("the action has no verb"))?.to_owned();
        deed.is(&verb, format!("deploymentintent/{namespace}/{name}"));
        let expected_step = expected_step.map(|step| usize::try_from(step).unwrap_or(usize::MAX));
        let request = view::RolloutRequest { verb, revision, variant, id, expected_step, actor, reason };
        let action = rollouts::action(request);
        let action = action.map_err(|(error, hint)| Status::invalid_argument(format!("{error}: {hint}")))?;
        let target = self.target(&namespace, &name, expected_run).await?;
        let acted = self.intents.act(&namespace, &target, action).await.map_err(unavailable)?;
        match acted {
            Ok(rollout) => Ok(Response::new(messages::rollout(rollout))),
            Err(error) => {
                deed.is_refused(&error.to_string());
                Err(not_done(&error))
            }
        }
    }

    async fn delete(
        &self,
        request: Request<delivery::DeleteRequest>,
    ) -> Result<Response<delivery::DeleteResponse>, Status> {
        let deed = deed(&request);
        let delivery::DeleteRequest { reference: named, expected_generation, dry_run, actor, reason } =
            request.into_inner();
        deed.by(&actor, &reason);
        let deletion = Deletion { reference: reference(named)?, expected_generation, is_dry_run: dry_run };
        let acceptance = self.submit(&deed, Submission::Delete(deletion)).await?;
        Ok(Response::new(delivery::DeleteResponse { object: acceptance.objects.first().map(messages::taken) }))
    }
}

/// What the audit trail is told; nothing where there is none.
fn deed<T>(request: &Request<T>) -> Deed {
    request.extensions().get::<Deed>().cloned().unwrap_or_default()
}

fn reference(named: Option<delivery::Reference>) -> Result<ObjectRef, Status> {
    let delivery::Reference { kind, namespace, name } =
        named.ok_or_else(|| Status::invalid_argument("reference: no object is named"))?;
    if namespace.is_empty() || name.is_empty() {
        return Err(Status::invalid_argument("reference: namespace and name are needed"));
    }
    short(&[("reference.kind", &kind), ("reference.namespace", &namespace), ("reference.name", &name)])?;
    let kind = kind_named(&kind).map_err(|error| Status::invalid_argument(format!("reference.kind: {error}")))?;
    Ok(ObjectRef::new(kind, &namespace, &name))
}

/// Names that nothing can have are not looked for. Nor are they repeated: a status is a header, which has to be short.
fn short(names: &[(&str, &str)]) -> Result<(), Status> {
    match names.iter().find(|(_, name)| name.len() > LONGEST_NAME) {
        Some((field, _)) => Err(Status::invalid_argument(format!("{field}: longer than {LONGEST_NAME} bytes"))),
        None => Ok(()),
    }
}

fn filter(kind: &str, namespace: String, name: String) -> Result<IntentFilter, Status> {
    short(&[("kind", kind), ("namespace", &namespace), ("name", &name)])?;
    let kind = match kind {
        "" => None,
        kind => Some(kind_named(kind).map_err(|error| Status::invalid_argument(format!("kind: {error}")))?),
    };
    Ok(IntentFilter { kind, namespace, name })
}

fn refused(refusal: &Refusal) -> Status {
    let words = format!("{refusal}; {}", refusal.hint());
    match refusal {
        Refusal::Invalid(problems) => {
            Status::with_details(tonic::Code::InvalidArgument, words.clone(), messages::details(&words, problems))
        }
        Refusal::NotFound(_) => Status::not_found(words),
        Refusal::Moved { .. } => Status::aborted(words),
        Refusal::Owned { .. } | Refusal::NoState => Status::failed_precondition(words),
        Refusal::NotStored(_) | Refusal::Busy | Refusal::Nobody => Status::unavailable(words),
    }
}

fn not_done(error: &ActError) -> Status {
    let words = error.to_string();
    match error {
        ActError::Unknown { .. } => Status::not_found(words),
        ActError::Over { .. }
        | ActError::Refused(ActionError::WrongRun { .. } | ActionError::Moved { .. } | ActionError::IdTaken { .. }) => {
            Status::aborted(words)
        }
        ActError::NoRun(_) | ActError::Refused(ActionError::NotNow { .. }) => Status::failed_precondition(words),
    }
}

fn unavailable(stopped: Stopped) -> Status {
    Status::unavailable(stopped.to_string())
}
