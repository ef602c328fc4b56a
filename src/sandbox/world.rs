//! Accounts, access tokens, projects and environments of the sandbox.

use super::hidden::Hidden;

/// Everything that exists when the sandbox starts; it does not change afterwards.
#[derive(Clone, Debug)]
pub struct World {
    /// Accounts, which cannot see one another.
    pub accounts: Vec<SandboxAccount>,
}

/// One customer of LaunchDarkly.
#[derive(Clone, Debug)]
pub struct SandboxAccount {
    /// The `accountId` of caller-identity.
    pub id: String,
    /// Access tokens for the REST API.
    pub tokens: Vec<Token>,
    /// Projects, in the order in which pages list them.
    pub projects: Vec<Project>,
}

/// A project: a set of environments.
#[derive(Clone, Debug)]
pub struct Project {
    /// The key by which REST paths name it.
    pub key: String,
    /// The name people see.
    pub name: String,
    /// Environments, in the order in which pages list them.
    pub environments: Vec<Environment>,
}

/// An environment: the place where segments and flag values live.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Its `_id`, public, which browser SDKs and this connector name it by.
    pub client_side_id: String,
    /// The key within its project.
    pub key: String,
    /// The name people see.
    pub name: String,
    /// The secret of server-side SDKs.
    pub sdk_key: Hidden<String>,
    /// The key of mobile SDKs, which ships with their applications.
    pub mobile_key: Hidden<String>,
}

/// An access token and what it may do.
#[derive(Clone, Debug)]
pub struct Token {
    /// The `_id` under `/api/v2/tokens`.
    pub id: String,
    /// What callers put into `Authorization`.
    pub secret: Hidden<String>,
    /// The name people gave it.
    pub name: String,
    /// Its owner.
    pub owner: Owner,
    /// What it may do.
    pub role: Role,
    /// Readings that are refused to it although its role would allow them.
    pub denials: Vec<Denial>,
}

/// The owner of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A member of the account.
    Member,
    /// None: a service token, which outlives the member that made it.
    Service,
}

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Reads everything, writes nothing.
    Reader,
    /// Reads and writes.
    Writer,
    /// Reads and writes, and sees other people's tokens.
    Admin,
    /// A custom role: its token entry shows an identifier and no rights.
    Custom(Rights),
}

/// What a custom role allows on segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Reading only.
    Read,
    /// Reading and writing.
    Write,
}

/// A reading that is refused with 403.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// `GET /api/v2/tokens/{id}` of the token itself.
    OwnEntry,
    /// `GET /api/v2/projects` and what lies under it.
    Projects,
}

impl Role {
    /// Whether synced segments may be written.
    pub(super) fn writes(self) -> bool {
        match self {
            Role::Writer | Role::Admin | Role::Custom(Rights::Write) => true,
            Role::Reader | Role::Custom(Rights::Read) => false,
        }
    }

    /// The name that a token entry shows, which custom roles do not have.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Role::Reader => Some("reader"),
            Role::Writer => Some("writer"),
            Role::Admin => Some("admin"),
            Role::Custom(_) => None,
        }
    }
}

/// A token in the account that it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) account: &'a SandboxAccount,
    pub(super) token: &'a Token,
}

impl World {
    pub(super) fn caller(&self, secret: &str) -> Option<Caller<'_>> {
        self.accounts.iter().find_map(|account| {
            let token = account
                .tokens
                .iter()
                .find(|token| *token.secret == secret)?;
            Some(Caller { account, token })
        })
    }

    pub(super) fn environments(&self) -> impl Iterator<Item = &Environment> {
        self.accounts.iter().flat_map(SandboxAccount::environments)
    }

    pub(super) fn environment(&self, client_side_id: &str) -> Option<&Environment> {
        self.environments()
            .find(|environment| environment.client_side_id == client_side_id)
    }

    pub(super) fn environment_of_sdk_key(&self, sdk_key: &str) -> Option<&Environment> {
        self.environments()
            .find(|environment| *environment.sdk_key == sdk_key)
    }

    pub(super) fn environment_of_mobile_key(&self, mobile_key: &str) -> Option<&Environment> {
        self.environments()
            .find(|environment| *environment.mobile_key == mobile_key)
    }
}

impl SandboxAccount {
    fn environments(&self) -> impl Iterator<Item = &Environment> {
        self.projects
            .iter()
            .flat_map(|project| &project.environments)
    }

    /// The project and the environment of a client-side ID of this account.
    pub(super) fn find(&self, client_side_id: &str) -> Option<(&Project, &Environment)> {
        self.projects.iter().find_map(|project| {
            let mut environments = project.environments.iter();
            let found = environments.find(|each| each.client_side_id == client_side_id)?;
            Some((project, found))
        })
    }
}

impl Caller<'_> {
    pub(super) fn is_denied(&self, denial: Denial) -> bool {
        self.token.denials.contains(&denial)
    }
}
