//! Compiles the proto with protox (no `protoc` needed) into Rust code and the
//! descriptor set that reflection serves.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use prost::Message;
use prost_types::{
    FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use protox::file::{
    ChainFileResolver, DescriptorSetFileResolver, GoogleFileResolver, IncludeFileResolver,
};

const PROTO: &str = "cdp/destinations/v1/destination_connector.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    // `sqlx::migrate!` embeds them, and cargo does not see that by itself.
    println!("cargo::rerun-if-changed=migrations");

    let mut resolver = ChainFileResolver::new();
    resolver.add(IncludeFileResolver::new("proto".into()));
    resolver.add(GoogleFileResolver::new());
    resolver.add(DescriptorSetFileResolver::new(google_rpc()));
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_file(PROTO)?
        // Not imported, but carried in status details: reflection must know it.
        .open_file("google/rpc/error_details.proto")?;

    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    fs::write(
        out.join("descriptor_set.binpb"),
        compiler.encode_file_descriptor_set(),
    )?;
    tonic_prost_build::configure()
        .extern_path(".google.rpc", "::tonic_types::pb")
        // Their Debug is written by hand: it must show no secret and no identifier.
        .skip_debug([
            "cdp.destinations.v1.LaunchDarklyConfig",
            "cdp.destinations.v1.IdentifierRecord",
        ])
        .compile_fds(compiler.file_descriptor_set())?;
    intake(compiler.file_descriptor_set(), &out.join("intake"))
}

/// Compiles the server once more, with batches left as they are encoded: a field of bytes is encoded
/// as a message is. All other messages are those of the first run.
fn intake(mut set: FileDescriptorSet, out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    const REQUEST: &str = "SendIdentifiersRequest";
    const BATCH: &str = "batch";

    set.file.retain(|file| file.name() == PROTO);
    let [file] = set.file.as_mut_slice() else {
        return Err("the proto is compiled once".into());
    };
    let package = file.package().to_owned();
    let mut builder = tonic_prost_build::configure()
        .build_client(false)
        .bytes(".")
        .skip_debug([format!("{package}.{REQUEST}")])
        .out_dir(out);
    for message in &mut file.message_type {
        let name = message.name().to_owned();
        if name != REQUEST {
            builder =
                builder.extern_path(format!(".{package}.{name}"), format!("crate::pb::{name}"));
            continue;
        }
        // Outside the oneof, so that a message that holds `batch` twice loses none of it.
        message.oneof_decl.clear();
        for field in &mut message.field {
            field.oneof_index = None;
            if field.name() == BATCH {
                field.set_type(Type::Bytes);
                field.set_label(Label::Repeated);
                field.type_name = None;
            }
        }
    }
    fs::create_dir_all(out)?;
    Ok(builder.compile_fds(set)?)
}

/// The `google.rpc` files of `tonic-types` under their canonical paths.
///
/// `tonic-types` names them without their directory. Served like that beside a
/// client's own `google/rpc/status.proto`, one message would have two homes, and
/// strict descriptor pools refuse the second.
fn google_rpc() -> FileDescriptorSet {
    let mut set = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .expect("tonic-types ships a valid descriptor set");
    for file in &mut set.file {
        if file.package() == "google.rpc" {
            file.name = Some(format!("google/rpc/{}", file.name()));
        }
    }
    set
}
