//! The gRPC reflection service, v1 and v1alpha: descriptors of what the server serves.
//!
//! A name that is not found gets an answer, and the stream goes on: clients look up one name after
//! another on one stream. tonic's own service would end it with a status.

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, stream::BoxStream};
use prost::Message;
use prost_reflect::{DescriptorError, DescriptorPool, FileDescriptor, MessageDescriptor};
use tonic::{Code, Request, Response, Status, Streaming, async_trait};
use tonic_reflection::pb::{
    v1::{
        self, ErrorResponse, ExtensionNumberResponse, ExtensionRequest, FileDescriptorResponse,
        ListServiceResponse, ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
        server_reflection_request::MessageRequest,
        server_reflection_response::MessageResponse,
        server_reflection_server::{ServerReflection, ServerReflectionServer},
    },
    v1alpha,
};

type Answers<T> = BoxStream<'static, Result<T, Status>>;

/// The descriptors; clones are handles to the same.
#[derive(Debug, Clone)]
pub(crate) struct Reflection {
    pool: DescriptorPool,
    /// Where each service, method, message, field, oneof, enum, enum value and extension is
    /// defined, by its full name.
    symbols: Arc<HashMap<String, FileDescriptor>>,
}

impl Reflection {
    /// Serves these encoded descriptor sets, and that of reflection itself.
    ///
    /// # Errors
    /// A set that cannot be decoded, or that refers to one that is missing.
    pub(crate) fn new(sets: &[&[u8]]) -> Result<Self, DescriptorError> {
        let own = [v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];
        let mut pool = DescriptorPool::new();
        for set in sets.iter().copied().chain(own) {
            pool.decode_file_descriptor_set(set)?;
        }
        let symbols = Arc::new(symbols(&pool));
        Ok(Self { pool, symbols })
    }

    /// The service of version 1.
    #[must_use]
    pub(crate) fn v1(&self) -> ServerReflectionServer<Self> {
        ServerReflectionServer::new(self.clone())
    }

    /// The service of version 1alpha, which many clients try first.
    #[must_use]
    pub(crate) fn v1alpha(
        &self,
    ) -> v1alpha::server_reflection_server::ServerReflectionServer<Self> {
        v1alpha::server_reflection_server::ServerReflectionServer::new(self.clone())
    }

    fn answer(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let asked = request.message_request.as_ref();
        let found = asked.map_or_else(
            || {
                Err(error(
                    Code::InvalidArgument,
                    "the request asks for nothing".into(),
                ))
            },
            |asked| self.find(asked),
        );
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(found.unwrap_or_else(MessageResponse::ErrorResponse)),
        }
    }

    fn find(&self, asked: &MessageRequest) -> Result<MessageResponse, ErrorResponse> {
        match asked {
            MessageRequest::FileByFilename(name) => {
                let file = self.pool.get_file_by_name(name);
                file.map(|file| defined_in(&file))
                    .ok_or_else(|| missing("file", name))
            }
            MessageRequest::FileContainingSymbol(name) => {
                let file = self.symbols.get(name);
                file.map(defined_in).ok_or_else(|| missing("symbol", name))
            }
            MessageRequest::FileContainingExtension(extension) => self.extension(extension),
            MessageRequest::AllExtensionNumbersOfType(name) => self
                .message(name)
                .map(|message| extension_numbers(&message)),
            MessageRequest::ListServices(_) => Ok(self.services()),
        }
    }

    fn message(&self, name: &str) -> Result<MessageDescriptor, ErrorResponse> {
        let message = self.pool.get_message_by_name(name);
        message.ok_or_else(|| missing("message", name))
    }

    fn extension(&self, asked: &ExtensionRequest) -> Result<MessageResponse, ErrorResponse> {
        let ExtensionRequest {
            containing_type,
            extension_number,
        } = asked;
        let message = self.message(containing_type)?;
        let number = u32::try_from(*extension_number).ok();
        let extension = number.and_then(|number| message.get_extension(number));
        let name = || format!("{extension_number} of {containing_type}");
        extension
            .map(|extension| defined_in(&extension.parent_file()))
            .ok_or_else(|| missing("extension", &name()))
    }

    fn services(&self) -> MessageResponse {
        let named = |name: &str| ServiceResponse { name: name.into() };
        let service = self.pool.services().map(|each| named(each.full_name()));
        MessageResponse::ListServicesResponse(ListServiceResponse {
            service: service.collect(),
        })
    }
}

fn symbols(pool: &DescriptorPool) -> HashMap<String, FileDescriptor> {
    let mut symbols = HashMap::new();
    let mut add = |name: &str, file| symbols.insert(name.to_owned(), file);
    for service in pool.services() {
        add(service.full_name(), service.parent_file());
        for method in service.methods() {
            add(method.full_name(), service.parent_file());
        }
    }
    for message in pool.all_messages() {
        add(message.full_name(), message.parent_file());
        for field in message.fields() {
            add(field.full_name(), message.parent_file());
        }
        for oneof in message.oneofs() {
            add(oneof.full_name(), message.parent_file());
        }
    }
    for each in pool.all_enums() {
        add(each.full_name(), each.parent_file());
        for value in each.values() {
            add(value.full_name(), each.parent_file());
        }
    }
    for extension in pool.all_extensions() {
        add(extension.full_name(), extension.parent_file());
    }
    symbols
}

/// One file without its imports: a client asks for those by name.
fn defined_in(file: &FileDescriptor) -> MessageResponse {
    MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
        file_descriptor_proto: vec![file.encode_to_vec()],
    })
}

fn extension_numbers(message: &MessageDescriptor) -> MessageResponse {
    let numbers = message.extensions().map(|each| each.number().cast_signed());
    MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
        base_type_name: message.full_name().to_owned(),
        extension_number: numbers.collect(),
    })
}

fn missing(what: &str, name: &str) -> ErrorResponse {
    error(Code::NotFound, format!("there is no {what} {name}"))
}

fn error(code: Code, error_message: String) -> ErrorResponse {
    ErrorResponse {
        error_code: code.into(),
        error_message,
    }
}

#[async_trait]
impl ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers<ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let reflection = self.clone();
        let answers = requests
            .into_inner()
            .map(move |request| Ok(reflection.answer(request?)));
        Ok(Response::new(answers.boxed()))
    }
}

#[async_trait]
impl v1alpha::server_reflection_server::ServerReflection for Reflection {
    type ServerReflectionInfoStream = Answers<v1alpha::ServerReflectionResponse>;

    async fn server_reflection_info(
        &self,
        requests: Request<Streaming<v1alpha::ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let reflection = self.clone();
        let answers = requests.into_inner().map(move |request| {
            let answer = reflection.answer(other_version(&request?));
            Ok(other_version(&answer))
        });
        Ok(Response::new(answers.boxed()))
    }
}

/// The same message in the other version, which differs by its package alone.
fn other_version<T: Message + Default>(message: &impl Message) -> T {
    let bytes = message.encode_to_vec();
    T::decode(&*bytes).expect("both versions have the same form on the wire")
}
