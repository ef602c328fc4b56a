//! The request that a manifest reads: fixed text with places for the values of a call.

use super::{
    action_words::ActionWords,
    manifest::{Manifest, ManifestError, Membership, Place, Problem},
};
use crate::domain::{ContextKind, Member, Operation, OperationsPerCall, SegmentCall};

/// A number from this on is the name of a field, not an index.
const MAX_ITEMS: usize = 100;

/// What every request of an integration looks like.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    request: Vec<Piece>,
    member: Vec<Piece>,
    /// Where a request is all additions or all removals.
    words: Option<ActionWords>,
    names_context_kind: bool,
}

/// A part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// JSON that is the same in every request.
    Text(String),
    Environment,
    SegmentId,
    SegmentName,
    ContextKind,
    ActionWord,
    /// The members; only those of one operation if a request has two lists.
    Members(Option<Operation>),
    /// Of a member.
    Key,
    /// Whether a member is in.
    IsMember,
}

impl Template {
    /// Works out the request from which the manifest's pointers read every value.
    pub(super) fn new(manifest: &Manifest) -> Result<Self, ManifestError> {
        let mut layout = Layout::default();
        let (mut words, mut lists) = (None, Vec::new());
        layout.member.insert(&manifest.member_key, Piece::Key)?;
        match &manifest.membership {
            Membership::Word {
                members,
                word,
                words: chosen,
            } => {
                lists.push((members, Piece::Members(None)));
                words = Some(chosen.clone());
                layout.place(word, Piece::ActionWord, &lists)?;
            }
            Membership::Boolean { members, boolean } => {
                lists.push((members, Piece::Members(None)));
                layout.member.insert(boolean, Piece::IsMember)?;
            }
            Membership::Lists { add, remove } => {
                lists.push((add, Piece::Members(Some(Operation::Add))));
                lists.push((remove, Piece::Members(Some(Operation::Remove))));
            }
        }
        layout.place(&manifest.environment, Piece::Environment, &lists)?;
        for (value, piece) in [
            (&manifest.segment_id, Piece::SegmentId),
            (&manifest.segment_name, Piece::SegmentName),
        ] {
            if let Some(place) = &value.member {
                layout.member.insert(place, piece.clone())?;
            }
            if let Some(place) = &value.request {
                layout.place(place, piece, &lists)?;
            }
        }
        if let Some(place) = &manifest.context_kind {
            layout.place(place, Piece::ContextKind, &lists)?;
        }
        for (place, piece) in lists {
            layout.request.insert(place, piece)?;
        }
        Ok(Self {
            request: layout.request.pieces(),
            member: layout.member.pieces(),
            words,
            names_context_kind: manifest.context_kind.is_some(),
        })
    }

    pub(super) fn names_context_kind(&self) -> bool {
        self.names_context_kind
    }

    pub(super) fn operations(&self) -> OperationsPerCall {
        match self.words {
            Some(_) => OperationsPerCall::One,
            None => OperationsPerCall::Mixed,
        }
    }

    /// The request for a call; none if it cannot say all that the call asks.
    pub(super) fn fill(&self, call: &SegmentCall) -> Option<Vec<u8>> {
        let first = call.members.first()?.operation;
        let is_mixed = call.members.iter().any(|each| each.operation != first);
        if is_mixed && self.operations() == OperationsPerCall::One {
            return None;
        }
        if !self.names_context_kind && call.segment.kind != ContextKind::default() {
            return None;
        }
        let mut filling = Filling {
            template: self,
            call,
            first,
            body: Vec::with_capacity(self.size_hint(call)),
        };
        filling.write(&self.request, None);
        Some(filling.body)
    }

    /// About as many bytes as a request has.
    fn size_hint(&self, call: &SegmentCall) -> usize {
        let fixed = |pieces: &[Piece]| -> usize {
            let length = |piece: &Piece| match piece {
                Piece::Text(text) => text.len(),
                _ => 64,
            };
            pieces.iter().map(length).sum()
        };
        let keys: usize = call
            .members
            .iter()
            .map(|each| each.key.as_str().len())
            .sum();
        fixed(&self.request) + call.members.len() * fixed(&self.member) + keys
    }
}

/// A request that is being written.
struct Filling<'a> {
    template: &'a Template,
    call: &'a SegmentCall,
    /// The operation of all members, where a request has one.
    first: Operation,
    body: Vec<u8>,
}

impl Filling<'_> {
    fn write(&mut self, pieces: &[Piece], member: Option<&Member>) {
        let call = self.call;
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.body.extend_from_slice(text.as_bytes()),
                Piece::Environment => self.string(call.connection.client_side_id.as_str()),
                Piece::SegmentId => self.string(call.segment.id.as_str()),
                Piece::SegmentName => self.string(call.segment.name()),
                Piece::ContextKind => self.string(call.segment.kind.as_str()),
                Piece::ActionWord => {
                    if let Some(words) = &self.template.words {
                        self.string(words.word(self.first));
                    }
                }
                Piece::Members(only) => self.members(*only),
                Piece::Key => {
                    if let Some(member) = member {
                        self.string(member.key.as_str());
                    }
                }
                Piece::IsMember => {
                    let is_in = member.is_some_and(|each| each.operation == Operation::Add);
                    let boolean: &[u8] = if is_in { b"true" } else { b"false" };
                    self.body.extend_from_slice(boolean);
                }
            }
        }
    }

    fn members(&mut self, only: Option<Operation>) {
        let (template, call) = (self.template, self.call);
        let listed = |member: &&Member| only.is_none_or(|operation| member.operation == operation);
        self.body.push(b'[');
        for (index, member) in call.members.iter().filter(listed).enumerate() {
            if index > 0 {
                self.body.push(b',');
            }
            self.write(&template.member, Some(member));
        }
        self.body.push(b']');
    }

    fn string(&mut self, text: &str) {
        serde_json::to_writer(&mut self.body, text).expect("text is written to memory");
    }
}

/// The values of a request and of one member, by their places.
#[derive(Default)]
struct Layout {
    request: Tree,
    member: Tree,
}

impl Layout {
    /// Places a value of the request. A pointer may lead into the list of members: to the first,
    /// which is always there. Then each member holds the value, as members are all alike.
    fn place(
        &mut self,
        place: &Place,
        piece: Piece,
        lists: &[(&Place, Piece)],
    ) -> Result<(), ManifestError> {
        for (list, _) in lists {
            match place.pointer.beyond(&list.pointer) {
                None | Some([]) => {}
                Some([index, rest @ ..])
                    if index == "0" && !rest.is_empty() && lists.len() == 1 =>
                {
                    return self.member.insert_at(rest, place.field, piece);
                }
                Some(_) => {
                    let problem = Problem::InList(list.field);
                    return Err(ManifestError::of_field(place.field, problem));
                }
            }
        }
        self.request.insert(place, piece)
    }
}

/// JSON whose values are still to come. Fields stand in the order in which they came.
#[derive(Debug)]
enum Tree {
    /// A value, and the field of the manifest that places it.
    Leaf(&'static str, Piece),
    Inner(Vec<(String, Tree)>),
}

impl Default for Tree {
    fn default() -> Self {
        Self::Inner(Vec::new())
    }
}

impl Tree {
    fn insert(&mut self, place: &Place, piece: Piece) -> Result<(), ManifestError> {
        self.insert_at(place.pointer.tokens(), place.field, piece)
    }

    fn insert_at(
        &mut self,
        tokens: &[String],
        field: &'static str,
        piece: Piece,
    ) -> Result<(), ManifestError> {
        let taken = |by| Err(ManifestError::of_field(field, Problem::Taken(by)));
        match (self, tokens) {
            // In a list, the request's own value and each member's may be the same.
            (Self::Leaf(_, known), []) if *known == piece => Ok(()),
            (Self::Leaf(by, _), _) => taken(*by),
            (inner @ Self::Inner(_), []) => taken(inner.any_field()),
            (Self::Inner(children), [token, rest @ ..]) => {
                match children.iter_mut().find(|(name, _)| name == token) {
                    Some((_, child)) => child.insert_at(rest, field, piece),
                    None => {
                        let leaf = Self::Leaf(field, piece);
                        let wrap = |tree, token: &String| Self::Inner(vec![(token.clone(), tree)]);
                        let tree = rest.iter().rev().fold(leaf, wrap);
                        children.push((token.clone(), tree));
                        Ok(())
                    }
                }
            }
        }
    }

    /// A field that places a value in this tree.
    fn any_field(&self) -> &'static str {
        match self {
            Self::Leaf(field, _) => field,
            Self::Inner(children) => children.first().map_or("", |(_, child)| child.any_field()),
        }
    }

    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        self.render(&mut pieces);
        pieces
    }

    fn render(&self, pieces: &mut Vec<Piece>) {
        let children = match self {
            Self::Leaf(_, piece) => return pieces.push(piece.clone()),
            Self::Inner(children) => children,
        };
        if let Some(items) = items(children) {
            push_text(pieces, "[");
            for (index, item) in items.into_iter().enumerate() {
                push_text(pieces, if index > 0 { "," } else { "" });
                match item {
                    Some(child) => child.render(pieces),
                    None => push_text(pieces, "null"),
                }
            }
            return push_text(pieces, "]");
        }
        push_text(pieces, "{");
        for (index, (name, child)) in children.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let name = serde_json::to_string(name).expect("text always encodes");
            push_text(pieces, &format!("{comma}{name}:"));
            child.render(pieces);
        }
        push_text(pieces, "}");
    }
}

/// The items of an array, where every name is an index.
fn items(children: &[(String, Tree)]) -> Option<Vec<Option<&Tree>>> {
    let mut items = Vec::new();
    for (name, child) in children {
        let index: usize = name.parse().ok().filter(|index| *index < MAX_ITEMS)?;
        // Without leading zeros or a sign, as the standard has it.
        if index.to_string() != *name {
            return None;
        }
        if items.len() <= index {
            items.resize(index + 1, None);
        }
        items[index] = Some(child);
    }
    Some(items)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Text(last)) => last.push_str(text),
        _ => pieces.push(Piece::Text(text.to_owned())),
    }
}
