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
