//! Who pays for a request.

use std::iter::{once, successors};
use std::rc::Rc;

use crate::base::name::Name;
use crate::config::{Parent, Plan};
use crate::limits::budget::Budget;
use crate::limits::lend::ChildKey;
use crate::plan::{Limits, SubjectLimits};
use crate::policy::{Book, Payer};
use crate::published::metric::Label;
use crate::report::log_fields;
use crate::report::log_fields::Field;
use crate::report::metrics;
use crate::state::record::Record;
use crate::state::subjects::SubjectId;
use crate::tenant::TenantId;

/// Who pays for a request, and by which rules.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The tenant whose budget pays.
    pub id: TenantId,
    /// What the tenant may use.
    pub plan: Rc<Plan>,
    /// Whether the tenant is in the configuration, so that it has a key and metrics of its own.
    pub configured: bool,
    /// The tenant's parent, whose limits also count the tenant's requests.
    pub parent: Option<Rc<Parent>>,
    /// The subjects that the limits also count, each with the index of its kind in the configuration.
    pub subjects: Vec<(usize, SubjectId)>,
}

/// A book on which a request is charged besides its tenant's own record.
pub(crate) struct BookOf<'a> {
    pub(crate) payer: Payer,
    pub(crate) limits: &'a Limits,
    pub(crate) whose: Whose<'a>,
    /// The child through which the requests come to this book, if that child has a guaranteed share.
    pub(crate) child: Option<ChildKey>,
    /// Whether the book's limits count requests, but refuse none (shadow mode).
    pub(crate) looks_on: bool,
}

/// The owner of a book.
#[derive(Clone, Copy)]
pub(crate) enum Whose<'a> {
    Parent(&'a TenantId),
    Subject {
        /// The tenant whose limits count the subject, and whether that tenant is configured.
        tenant: (&'a TenantId, bool),
        kind: &'a Name,
        id: SubjectId,
    },
}

/// A tenant, or one above it.
struct Level<'a> {
    id: &'a TenantId,
    limits: &'a Limits,
    configured: bool,
    is_parent: bool,
}

impl<'a> BookOf<'a> {
    /// The book, with its state from this record.
    pub(crate) fn with<'b>(&self, record: &'b Record) -> Book<'b>
    where
        'a: 'b,
    {
        Book {
            payer: self.payer,
            limits: self.limits,
            record,
            child: self.child,
            looks_on: self.looks_on,
        }
    }
}

impl Tenant {
    /// The access log's fields that identify the tenant.
    pub fn identified(&self) -> impl Iterator<Item = Field> {
        log_fields::identified(self.id.name(), Some(&self.plan.name))
    }

    /// The tenant as a metric's label.
    pub(crate) fn label(&self) -> Label {
        if self.configured {
            self.id.name().into()
        } else {
            metrics::UNCONFIGURED.into()
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.plan.limits
    }

    /// The kinds of subjects that the limits of the tenant and of its parents count, the tenant's own first. A kind may occur repeatedly.
    pub(crate) fn counted(&self) -> impl Iterator<Item = &SubjectLimits> {
        self.levels().flat_map(|level| &level.limits.subjects)
    }

    /// The books on which the tenant's requests are charged besides its own record, always in the same order.
    pub(crate) fn books(&self) -> impl Iterator<Item = BookOf<'_>> {
        let is_tried = self.limits().shadow;
        self.levels().flat_map(move |level| {
            let looks_on = level.is_parent && level.limits.shadow && !is_tried;
            let has_own = level.is_parent && level.limits.has_any();
            let own = has_own.then_some(BookOf {
                payer: Payer::Parent,
                limits: level.limits,
                whose: Whose::Parent(level.id),
                child: self.child_of(level.id, level.limits),
                looks_on,
            });
            let tenant = (level.id, level.configured);
            let subjects = level.limits.subjects.iter().filter_map(move |counted| {
                let mut shown = self.subjects.iter();
                let &(_, id) = shown.find(|(kind, _)| *kind == counted.index)?;
                let kind = &counted.kind;
                Some(BookOf {
                    payer: Payer::Subject,
                    limits: &counted.limits,
                    whose: Whose::Subject { tenant, kind, id },
                    child: None,
                    looks_on,
                })
            });
            own.into_iter().chain(subjects)
        })
    }

    /// The child of a parent through which the tenant's requests come to that parent, if that child has a guaranteed share.
    #[inline(never)]
    fn child_of(&self, parent: &TenantId, limits: &Limits) -> Option<ChildKey> {
        if limits.guarantees.is_empty() {
            return None;
        }
        let mut child = &self.id;
        let mut above = self.parent.as_deref();
        while let Some(next) = above.filter(|next| next.id != *parent) {
            child = &next.id;
            above = next.parent.as_deref();
        }
        let key = ChildKey::of(child);
        let mut all = limits.guarantees.iter();
        all.any(|guarantee| guarantee.child == key).then_some(key)
    }

    fn levels(&self) -> impl Iterator<Item = Level<'_>> {
        let own = Level {
            id: &self.id,
            limits: self.limits(),
            configured: self.configured,
            is_parent: false,
        };
        let parents = successors(self.parent.as_deref(), |parent| parent.parent.as_deref());
        once(own).chain(parents.map(|parent| Level {
            id: &parent.id,
            limits: &parent.plan.limits,
            configured: true,
            is_parent: true,
        }))
    }

    /// The tenant with a plan that is tried on its requests: with an account of its own, and without parents or subjects.
    pub(crate) fn trying(&self, plan: &Rc<Plan>) -> Self {
        Self {
            id: self.id.trying(&plan.name),
            plan: Rc::clone(plan),
            configured: self.configured,
            parent: None,
            subjects: Vec::new(),
        }
    }

    /// All who pay for the tenant's requests, as tenants: the tenant itself, then its parents.
    pub(crate) fn payers(&self) -> impl Iterator<Item = Self> {
        let above = self.books().filter_map(|book| match book.whose {
            Whose::Parent(parent) => self.payer(parent),
            Whose::Subject { .. } => None,
        });
        once(self.clone()).chain(above.collect::<Vec<_>>())
    }

    /// One of those who pay, as a tenant.
    pub(crate) fn payer(&self, whose: &TenantId) -> Option<Self> {
        if self.id == *whose {
            return Some(self.clone());
        }
        let mut parents = successors(self.parent.as_ref(), |parent| parent.parent.as_ref());
        parents
            .find(|parent| parent.id == *whose)
            .map(|parent| Self {
                id: parent.id.clone(),
                plan: Rc::clone(&parent.plan),
                configured: true,
                parent: parent.parent.clone(),
                subjects: Vec::new(),
            })
    }

    /// Whether the plan of anyone who pays has pace.
    pub(crate) fn has_pace(&self) -> bool {
        let mut books = self.books();
        self.limits().pace.is_some() || books.any(|book| book.limits.pace.is_some())
    }

    /// The books with their records, in the order of [`Tenant::books`].
    pub(crate) fn with_records<'a>(&'a self, records: &'a [Record]) -> Vec<Book<'a>> {
        let all = self.books().zip(records);
        all.map(|(of, record)| of.with(record)).collect()
    }

    /// All budgets on which the tenant's requests are charged, its own first.
    pub(crate) fn budgets(&self) -> impl Iterator<Item = &Budget> {
        let others = self.books().flat_map(|book| book.limits.budgets());
        self.limits().budgets().chain(others)
    }
}
