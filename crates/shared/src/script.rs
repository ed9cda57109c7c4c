//! What the control plane needs to know about a script without knowing the engine.

use crate::app::ScriptKind;
use crate::names::ScriptPath;
use crate::sdk::SecretValue;

/// Tells whether a sealed secret can be opened here.
pub trait SecretChecker: Send + Sync {
    /// `Err` says why not, without saying what is in it.
    fn check(&self, sealed: &str) -> Result<(), String>;
}

/// Reads a script's source and says what is wrong with it. Implemented by executor-core and given
/// to the validator by the program. Pure: the same text gives the same report.
pub trait ScriptChecker: Send + Sync {
    /// Compiles `source`; never runs it.
    fn check(&self, path: &ScriptPath, kind: ScriptKind, source: &str) -> ScriptReport;
}

/// What a checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScriptReport {
    /// The modules it imports, by literal name.
    pub imports: Vec<Import>,
    /// The scripts it names literally in `scripts::invoke` and `scripts::enqueue`.
    pub invokes: Vec<Import>,
    /// Whether it runs scripts whose names are made as it runs.
    pub invokes_any: bool,
    /// The functions that whoever imports it may call.
    pub exports: Vec<Export>,
    /// Calls of functions of modules that it imports.
    pub module_calls: Vec<ModuleCall>,
    /// Closures that call functions of their own script.
    pub closures: Vec<Import>,
    /// What is wrong with it.
    pub problems: Vec<ScriptProblem>,
}

/// A name and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// As written.
    pub name: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

/// A function that a module has for others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// How many arguments it takes.
    pub parameters: usize,
}

/// A call of a function of an imported module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleCall {
    /// The module, by the name that was imported.
    pub module: String,
    /// The function.
    pub function: String,
    /// How many arguments it is given.
    pub arguments: usize,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

/// One thing that is wrong with a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptProblem {
    /// Which of the kinds that have a code each.
    pub kind: ScriptProblemKind,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// One sentence part, without the place.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Kinds of problems of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScriptProblemKind {
    /// It doesn't compile.
    Syntax,
    /// It calls a function that neither it nor the SDK has.
    UnknownFunction,
    /// It calls a function with a number of arguments that it doesn't take.
    WrongArity,
    /// It imports a name that isn't literal.
    DynamicImport,
    /// Deployed all the same, but a person should look.
    Warning,
}

/// Seals what the server keeps of its own: tokens of forges, secrets of webhooks.
pub trait Vault: Send + Sync {
    /// Seals to the server's current key.
    fn seal(&self, clear: &str) -> Result<String, String>;
    /// Opens what was sealed to any of its keys.
    fn open(&self, sealed: &str) -> Result<SecretValue, String>;
    /// Whether the current key opens it.
    fn is_current(&self, sealed: &str) -> bool;
}
