//! What a template says, as a tree.

use std::sync::Arc;

/// An expression.
#[derive(Debug, Clone)]
pub(super) enum Expr {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    Name(Arc<str>),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Attr(Box<Expr>, Arc<str>),
    Item(Box<Expr>, Box<Expr>),
    /// Start, stop and step.
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Call(Box<Expr>, Arguments),
    Filter(Box<Expr>, FilterCall),
    Test(Box<Expr>, FilterCall),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Compare(Box<Expr>, Vec<(CompareOp, Expr)>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Concat(Vec<Expr>),
    /// The condition, the value if it holds, and the one if not.
    If(Box<Expr>, Box<Expr>, Option<Box<Expr>>),
}

/// An operator of two values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Remainder,
    Power,
}

/// A comparison of two values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum CompareOp {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

/// What is given to a call.
#[derive(Debug, Clone, Default)]
pub(super) struct Arguments {
    pub positional: Vec<Expr>,
    pub named: Vec<(Arc<str>, Expr)>,
    /// `*list`.
    pub list: Option<Box<Expr>>,
    /// `**dict`.
    pub dict: Option<Box<Expr>>,
}

/// A filter or a test by its name.
#[derive(Debug, Clone)]
pub(super) struct FilterCall {
    pub name: Arc<str>,
    pub arguments: Arguments,
}

/// What a value is put into.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Name(Arc<str>),
    /// An attribute of a namespace.
    Attr(Arc<str>, Arc<str>),
    Tuple(Vec<Target>),
}

/// A statement and its line.
#[derive(Debug, Clone)]
pub(super) struct Stmt {
    pub line: usize,
    pub kind: StmtKind,
}

#[derive(Debug, Clone)]
pub(super) enum StmtKind {
    Data(String),
    Output(Expr),
    For(Arc<For>),
    /// Conditions with their bodies; the last body has none.
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    Set(Target, Expr),
    SetBlock(Target, Vec<FilterCall>, Vec<Stmt>),
    Macro(Arc<Macro>),
    /// A call, and the macro that it gets as `caller`.
    Call(Expr, Arc<Macro>),
    Filter(Vec<FilterCall>, Vec<Stmt>),
    With(Vec<(Target, Expr)>, Vec<Stmt>),
    /// What the assistant says, as transformers marks it.
    Generation(Vec<Stmt>),
    Break,
    Continue,
}

/// A loop.
#[derive(Debug)]
pub(super) struct For {
    pub target: Target,
    pub over: Expr,
    pub condition: Option<Expr>,
    pub recursive: bool,
    pub body: Vec<Stmt>,
    pub otherwise: Vec<Stmt>,
}

/// A macro.
#[derive(Debug)]
pub(super) struct Macro {
    pub name: Arc<str>,
    /// Parameters and their defaults.
    pub parameters: Vec<(Arc<str>, Option<Expr>)>,
    pub body: Vec<Stmt>,
    /// Whether the body uses `varargs`, `kwargs` and `caller`.
    pub takes: [bool; 3],
}

/// A part of the tree.
enum Part<'a> {
    Body(&'a [Stmt]),
    Expr(&'a Expr),
    Arguments(&'a Arguments),
    Macro(&'a Macro),
}

/// How many statements and expressions of a template lie within each other, without recursion.
pub(super) fn depth(body: &[Stmt]) -> usize {
    let mut open = vec![(Part::Body(body), 0)];
    let mut deepest = 0;
    while let Some((part, depth)) = open.pop() {
        deepest = deepest.max(depth);
        let mut add = |part| open.push((part, depth + 1));
        match part {
            Part::Body(body) => body.iter().for_each(|statement| parts_of(&statement.kind, &mut add)),
            Part::Arguments(arguments) => {
                arguments.positional.iter().for_each(|value| add(Part::Expr(value)));
                arguments.named.iter().for_each(|(_, value)| add(Part::Expr(value)));
                arguments.list.iter().chain(&arguments.dict).for_each(|value| add(Part::Expr(value)));
            }
            Part::Macro(of) => {
                of.parameters
                    .iter()
                    .filter_map(|(_, default)| default.as_ref())
                    .for_each(|e| add(Part::Expr(e)));
                add(Part::Body(&of.body));
            }
            Part::Expr(expr) => parts_of_expr(expr, &mut add),
        }
    }
    deepest
}

fn parts_of<'a>(kind: &'a StmtKind, add: &mut impl FnMut(Part<'a>)) {
    let filters = |filters: &'a [FilterCall], add: &mut dyn FnMut(Part<'a>)| {
        filters.iter().for_each(|filter| add(Part::Arguments(&filter.arguments)));
    };
    match kind {
        StmtKind::Data(_) | StmtKind::Break | StmtKind::Continue => {}
        StmtKind::Output(value) | StmtKind::Set(_, value) => add(Part::Expr(value)),
        StmtKind::For(of) => {
            add(Part::Expr(&of.over));
            of.condition.iter().for_each(|e| add(Part::Expr(e)));
            add(Part::Body(&of.body));
            add(Part::Body(&of.otherwise));
        }
        StmtKind::If(cases, otherwise) => {
            for (test, body) in cases {
                add(Part::Expr(test));
                add(Part::Body(body));
            }
            add(Part::Body(otherwise));
        }
        StmtKind::SetBlock(_, calls, body) | StmtKind::Filter(calls, body) => {
            filters(calls, add);
            add(Part::Body(body));
        }
        StmtKind::Macro(of) => add(Part::Macro(of)),
        StmtKind::Call(call, of) => {
            add(Part::Expr(call));
            add(Part::Macro(of));
        }
        StmtKind::With(assigned, body) => {
            assigned.iter().for_each(|(_, value)| add(Part::Expr(value)));
            add(Part::Body(body));
        }
        StmtKind::Generation(body) => add(Part::Body(body)),
    }
}

fn parts_of_expr<'a>(expr: &'a Expr, add: &mut impl FnMut(Part<'a>)) {
    match expr {
        Expr::None | Expr::Bool(_) | Expr::Int(_) | Expr::Float(_) | Expr::Str(_) | Expr::Name(_) => {}
        Expr::List(items) | Expr::Tuple(items) | Expr::Concat(items) => {
            items.iter().for_each(|item| add(Part::Expr(item)));
        }
        Expr::Dict(fields) => fields.iter().for_each(|(key, value)| {
            add(Part::Expr(key));
            add(Part::Expr(value));
        }),
        Expr::Attr(of, _) | Expr::Not(of) | Expr::Negative(of) | Expr::Positive(of) => add(Part::Expr(of)),
        Expr::Item(a, b) | Expr::Binary(_, a, b) | Expr::And(a, b) | Expr::Or(a, b) => {
            add(Part::Expr(a));
            add(Part::Expr(b));
        }
        Expr::Slice(of, bounds) => {
            add(Part::Expr(of));
            bounds.iter().flatten().for_each(|bound| add(Part::Expr(bound)));
        }
        Expr::Call(of, arguments) => {
            add(Part::Expr(of));
            add(Part::Arguments(arguments));
        }
        Expr::Filter(of, call) | Expr::Test(of, call) => {
            add(Part::Expr(of));
            add(Part::Arguments(&call.arguments));
        }
        Expr::Compare(first, more) => {
            add(Part::Expr(first));
            more.iter().for_each(|(_, value)| add(Part::Expr(value)));
        }
        Expr::If(test, then, otherwise) => {
            add(Part::Expr(test));
            add(Part::Expr(then));
            otherwise.iter().for_each(|value| add(Part::Expr(value)));
        }
    }
}
