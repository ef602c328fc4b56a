//! The default world, by constants that the demo, the documentation and tests name.
//!
//! Two accounts. The first has 24 projects (more than the page of 20), the last of which has 25
//! environments, so that both levels of paging are needed to find [`FAR_CLIENT_SIDE_ID`]. Every
//! environment has the flag [`FLAG`], which is true for members of [`SEGMENT`]. Nothing here is a
//! secret: these tokens open nothing but a sandbox.
//!
//! | token | role | `tokens/{id}` of itself | lists projects | writes segments |
//! |---|---|---|---|---|
//! | [`WRITER_TOKEN`] | writer | yes | yes | yes |
//! | [`READER_TOKEN`] | reader | yes | yes | no |
//! | [`ADMIN_TOKEN`] | admin | yes, and others' | yes | yes |
//! | [`SERVICE_TOKEN`] | writer, service token | yes | yes | yes |
//! | [`CUSTOM_WRITER_TOKEN`] | custom, rights not shown | yes | yes | yes |
//! | [`CUSTOM_READER_TOKEN`] | custom, rights not shown | yes | yes | no |
//! | [`UNREADABLE_TOKEN`] | writer | 403 | yes | yes |
//! | [`NO_PROJECTS_TOKEN`] | writer | yes | 403 | yes |
//! | [`OTHER_ACCOUNT_TOKEN`] | writer in the other account | yes | yes | yes |

use super::{
    hidden::Hidden,
    world::{Denial, Environment, Owner, Project, Rights, Role, SandboxAccount, Token, World},
};

/// May write.
pub const WRITER_TOKEN: &str = "api-00000000-0000-4000-8000-000000000001";
/// May only read.
pub const READER_TOKEN: &str = "api-00000000-0000-4000-8000-000000000002";
/// May write, and see every token of the account.
pub const ADMIN_TOKEN: &str = "api-00000000-0000-4000-8000-000000000003";
/// May write; belongs to no member.
pub const SERVICE_TOKEN: &str = "api-00000000-0000-4000-8000-000000000004";
/// May write, by a custom role that does not say so.
pub const CUSTOM_WRITER_TOKEN: &str = "api-00000000-0000-4000-8000-000000000005";
/// May not write, by a custom role that does not say so.
pub const CUSTOM_READER_TOKEN: &str = "api-00000000-0000-4000-8000-000000000006";
/// May write, but not read its own token entry.
pub const UNREADABLE_TOKEN: &str = "api-00000000-0000-4000-8000-000000000007";
/// May write, but not list projects.
pub const NO_PROJECTS_TOKEN: &str = "api-00000000-0000-4000-8000-000000000008";
/// May write, in the other account only.
pub const OTHER_ACCOUNT_TOKEN: &str = "api-00000000-0000-4000-8000-000000000009";

/// The account of all tokens but [`OTHER_ACCOUNT_TOKEN`].
pub const ACCOUNT: &str = "a00000000000000000000001";
/// The account of [`OTHER_ACCOUNT_TOKEN`].
pub const OTHER_ACCOUNT: &str = "b00000000000000000000001";

/// The environment `production` of the first project, the one to use.
pub const CLIENT_SIDE_ID: &str = "5a0000000000000000000001";
/// The environment `test` of the first project.
pub const TEST_CLIENT_SIDE_ID: &str = "5a0000000000000000000002";
/// The last environment of the last project: on the second page of both lists.
pub const FAR_CLIENT_SIDE_ID: &str = "5a0000000000000000001819";
/// An environment of the other account.
pub const OTHER_ACCOUNT_CLIENT_SIDE_ID: &str = "5b0000000000000000000001";
/// Looks right and exists nowhere.
pub const UNKNOWN_CLIENT_SIDE_ID: &str = "5c0000000000000000000001";

/// SDK key of [`CLIENT_SIDE_ID`].
pub const SDK_KEY: &str = "sdk-5a0000000000000000000001";
/// SDK key of [`TEST_CLIENT_SIDE_ID`].
pub const TEST_SDK_KEY: &str = "sdk-5a0000000000000000000002";

/// Mobile key of [`CLIENT_SIDE_ID`].
pub const MOBILE_KEY: &str = "mob-5a0000000000000000000001";
/// Mobile key of [`TEST_CLIENT_SIDE_ID`].
pub const TEST_MOBILE_KEY: &str = "mob-5a0000000000000000000002";

/// The integration that is registered.
pub const INTEGRATION: &str = "zeotap";
/// The flag that every environment has.
pub const FLAG: &str = "vip-banner";
/// The segment that [`FLAG`] targets: cohort `vip` of [`INTEGRATION`].
pub const SEGMENT: &str = "zeotap-vip";

/// One more page than the first, whose length is LaunchDarkly's default of 20.
const PROJECTS: usize = 24;
const ENVIRONMENTS_OF_THE_LAST_PROJECT: usize = 25;

/// Builds the default world.
pub fn world() -> World {
    World {
        accounts: vec![first_account(), other_account()],
    }
}

fn first_account() -> SandboxAccount {
    let with_role = |secret, name, role| token(secret, name, role, vec![]);
    SandboxAccount {
        id: ACCOUNT.into(),
        tokens: vec![
            with_role(WRITER_TOKEN, "writer", Role::Writer),
            with_role(READER_TOKEN, "reader", Role::Reader),
            with_role(ADMIN_TOKEN, "admin", Role::Admin),
            Token {
                owner: Owner::Service,
                ..with_role(SERVICE_TOKEN, "service", Role::Writer)
            },
            with_role(CUSTOM_WRITER_TOKEN, "custom", Role::Custom(Rights::Write)),
            with_role(
                CUSTOM_READER_TOKEN,
                "custom reader",
                Role::Custom(Rights::Read),
            ),
            token(
                UNREADABLE_TOKEN,
                "unreadable",
                Role::Writer,
                vec![Denial::OwnEntry],
            ),
            token(
                NO_PROJECTS_TOKEN,
                "no projects",
                Role::Writer,
                vec![Denial::Projects],
            ),
        ],
        projects: first_projects(),
    }
}

fn other_account() -> SandboxAccount {
    SandboxAccount {
        id: OTHER_ACCOUNT.into(),
        tokens: vec![token(
            OTHER_ACCOUNT_TOKEN,
            "elsewhere",
            Role::Writer,
            vec![],
        )],
        projects: vec![Project {
            key: "elsewhere".into(),
            name: "Elsewhere".into(),
            environments: vec![environment(
                OTHER_ACCOUNT_CLIENT_SIDE_ID.into(),
                "production",
            )],
        }],
    }
}

fn first_projects() -> Vec<Project> {
    let journeys = Project {
        key: "journeys".into(),
        name: "Journeys".into(),
        environments: vec![
            environment(CLIENT_SIDE_ID.into(), "production"),
            environment(TEST_CLIENT_SIDE_ID.into(), "test"),
        ],
    };
    let numbered = (2..=PROJECTS).map(|number| numbered_project(number, environments_of(number)));
    std::iter::once(journeys).chain(numbered).collect()
}

fn environments_of(project: usize) -> usize {
    if project == PROJECTS {
        ENVIRONMENTS_OF_THE_LAST_PROJECT
    } else {
        1
    }
}

/// The id of its environments holds both numbers, in hexadecimal.
fn numbered_project(number: usize, environments: usize) -> Project {
    Project {
        key: format!("project-{number}"),
        name: format!("Project {number}"),
        environments: (1..=environments)
            .map(|each| environment(format!("5a{number:020x}{each:02x}"), &format!("env-{each}")))
            .collect(),
    }
}

fn environment(client_side_id: String, key: &str) -> Environment {
    Environment {
        sdk_key: Hidden(format!("sdk-{client_side_id}")),
        mobile_key: Hidden(format!("mob-{client_side_id}")),
        key: key.into(),
        name: key.into(),
        client_side_id,
    }
}

fn token(secret: &str, name: &str, role: Role, denials: Vec<Denial>) -> Token {
    let number = secret.rsplit('-').next().unwrap_or_default();
    Token {
        id: format!("7a{number:0>22}"),
        secret: Hidden(secret.into()),
        name: name.into(),
        owner: Owner::Member,
        role,
        denials,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_name_what_the_world_holds() {
        let world = world();
        let last = world.accounts[0].projects.last().unwrap();
        assert_eq!(
            last.environments.last().unwrap().client_side_id,
            FAR_CLIENT_SIDE_ID
        );
        assert!(world.environment(UNKNOWN_CLIENT_SIDE_ID).is_none());
        for (sdk_key, mobile_key, id) in [
            (SDK_KEY, MOBILE_KEY, CLIENT_SIDE_ID),
            (TEST_SDK_KEY, TEST_MOBILE_KEY, TEST_CLIENT_SIDE_ID),
        ] {
            let of_sdk_key = world.environment_of_sdk_key(sdk_key).unwrap();
            let of_mobile_key = world.environment_of_mobile_key(mobile_key).unwrap();
            assert_eq!(of_sdk_key.client_side_id, id);
            assert_eq!(of_mobile_key.client_side_id, id);
        }
        assert!(
            world.accounts[0]
                .find(OTHER_ACCOUNT_CLIENT_SIDE_ID)
                .is_none()
        );
        assert!(
            world.accounts[1]
                .find(OTHER_ACCOUNT_CLIENT_SIDE_ID)
                .is_some()
        );
    }

    #[test]
    fn debug_shows_no_token() {
        let shown = format!("{:?}", world());
        for secret in ["api-", "sdk-", "mob-"] {
            assert!(!shown.contains(secret), "{secret}");
        }
    }
}
