//! Paged search for the environment of a client-side ID, among all that a token may see.

use serde::de::DeserializeOwned;

use super::{
    judge::Listing,
    lookup::{Lookup, Reported, is_key},
};
use crate::{
    domain::CredentialsUnavailable,
    launchdarkly::wire::{CollectionRep, EnvironmentRep, ProjectRep},
};

/// Entries asked for at a time: LaunchDarkly's own default, since environments are large.
const PAGE: usize = 20;
/// Most pages looked through, of projects and environments together: room for 1,000 projects,
/// and about as many calls as fit into the time that a check may take.
const MAX_PAGES: u32 = 50;

/// The position of an environment, as far as LaunchDarkly disclosed it.
#[derive(Debug)]
pub(super) struct SearchPosition {
    pub(super) project_key: Option<String>,
    pub(super) project_name: Option<String>,
    pub(super) environment_key: Option<String>,
    pub(super) environment_name: Option<String>,
}

/// Why a search ended early.
enum SearchEnd {
    Forbidden,
    /// It has used up its pages, or a page leads nowhere.
    TooManyPages,
    Unavailable(CredentialsUnavailable),
}

/// A project that has more environments than its first page.
struct Partial {
    key: String,
    name: String,
    offset: usize,
}

/// Looks through projects and environments for the client-side ID.
pub(super) async fn search(
    lookup: &Lookup<'_>,
) -> Result<(Listing, Option<SearchPosition>), CredentialsUnavailable> {
    let mut search = Search {
        lookup,
        pages_left: MAX_PAGES,
    };
    match search.run().await {
        Ok(Some(place)) => Ok((Listing::Found, Some(place))),
        Ok(None) => Ok((Listing::Absent, None)),
        Err(SearchEnd::Forbidden) => Ok((Listing::Forbidden, None)),
        Err(SearchEnd::TooManyPages) => Ok((Listing::Incomplete, None)),
        Err(SearchEnd::Unavailable(error)) => Err(error),
    }
}

struct Search<'a> {
    lookup: &'a Lookup<'a>,
    pages_left: u32,
}

impl Search<'_> {
    /// First what comes with the projects, which is nearly always all; then the rest.
    async fn run(&mut self) -> Result<Option<SearchPosition>, SearchEnd> {
        let mut partial = Vec::new();
        let mut next = Some(0);
        while let Some(offset) = next {
            let path = "/api/v2/projects?expand=environments&";
            let page: CollectionRep<ProjectRep> = self.page(path, offset).await?;
            next = following(&page, offset)?;
            for project in page.items {
                if let Some(place) = self.place_in(&project) {
                    return Ok(Some(place));
                }
                partial.extend(Partial::of(project));
            }
        }
        for project in partial {
            if let Some(place) = self.rest_of(project).await? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    async fn rest_of(&mut self, project: Partial) -> Result<Option<SearchPosition>, SearchEnd> {
        // A key of another alphabet could name another path: count its environments as hidden.
        if !is_key(&project.key) {
            return Err(SearchEnd::Forbidden);
        }
        let path = format!("/api/v2/projects/{}/environments?", project.key);
        let mut next = Some(project.offset);
        while let Some(offset) = next {
            let page: CollectionRep<EnvironmentRep> = self.page(&path, offset).await?;
            if let Some(environment) = self.pick(&page.items) {
                return Ok(Some(place(&project.key, &project.name, environment)));
            }
            next = following(&page, offset)?;
        }
        Ok(None)
    }

    async fn page<T: DeserializeOwned>(
        &mut self,
        path: &str,
        offset: usize,
    ) -> Result<CollectionRep<T>, SearchEnd> {
        self.pages_left = self
            .pages_left
            .checked_sub(1)
            .ok_or(SearchEnd::TooManyPages)?;
        let path = format!("{path}limit={PAGE}&offset={offset}");
        match self.lookup.get(&path).await {
            Ok(Reported::This(page)) => Ok(page),
            Ok(Reported::Denied(_)) => Err(SearchEnd::Forbidden),
            Err(error) => Err(SearchEnd::Unavailable(error)),
        }
    }

    fn place_in(&self, project: &ProjectRep) -> Option<SearchPosition> {
        let environments = project.environments.as_ref()?;
        self.pick(&environments.items)
            .map(|environment| place(&project.key, &project.name, environment))
    }

    fn pick<'e>(&self, environments: &'e [EnvironmentRep]) -> Option<&'e EnvironmentRep> {
        let wanted = self.lookup.connection.client_side_id.as_str();
        environments
            .iter()
            .find(|environment| environment.id == wanted)
    }
}

impl Partial {
    fn of(project: ProjectRep) -> Option<Self> {
        let offset = match &project.environments {
            Some(environments) => environments.next_offset(0)?,
            None => 0,
        };
        Some(Self {
            key: project.key,
            name: project.name,
            offset,
        })
    }
}

/// Where to go on after a page. One that is empty and yet promises more leads nowhere.
fn following<T>(page: &CollectionRep<T>, offset: usize) -> Result<Option<usize>, SearchEnd> {
    match page.next_offset(offset) {
        Some(next) if next == offset => Err(SearchEnd::TooManyPages),
        next => Ok(next),
    }
}

fn place(project_key: &str, project_name: &str, environment: &EnvironmentRep) -> SearchPosition {
    SearchPosition {
        project_key: Some(project_key.to_owned()),
        project_name: Some(project_name.to_owned()),
        environment_key: Some(environment.key.clone()),
        environment_name: Some(environment.name.clone()),
    }
}
