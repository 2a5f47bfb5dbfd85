//! VNN-LIB queries: text of versions 1.0 and 2.0 to linear constraints in normal form, and back.
//!
//! The module knows nothing of networks but what a query declares. A [`Spec`] asks: is there an assignment of all inputs for which every
//! assertion holds? Assertions are a disjunction of conjunctions ([`Spec::cases`]) of exact linear constraints.

mod cases;
mod decimal;
mod declare;
mod error;
mod linear;
mod read;
mod scope;
#[cfg(test)]
mod tests;
mod tree;
mod write;

pub use decimal::Decimal;
pub use error::{ParseError, ReadError};
pub use read::{parse, read};
pub use write::write;

/// Which language a query is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `(declare-const X_0 Real)`: one network without a name.
    V1,
    /// `(vnnlib-version <2.0>)`: declared networks with typed tensors.
    V2,
}

/// Element types that a query can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// Real numbers: the model is meant as a function of real numbers, whatever its own types are.
    Real,
    /// IEEE binary16.
    Float16,
    /// The upper half of an IEEE binary32.
    BFloat16,
    /// IEEE binary32.
    Float32,
    /// IEEE binary64.
    Float64,
    /// Signed, 4 bits.
    Int4,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// Unsigned, 4 bits.
    UInt4,
    /// Unsigned, 8 bits.
    UInt8,
    /// Unsigned, 16 bits.
    UInt16,
    /// Unsigned, 32 bits.
    UInt32,
    /// Unsigned, 64 bits.
    UInt64,
    /// Truth values.
    Bool,
}

impl ElementType {
    const ALL: [(ElementType, &'static str); 16] = [
        (ElementType::Real, "real"),
        (ElementType::Float16, "float16"),
        (ElementType::BFloat16, "bfloat16"),
        (ElementType::Float32, "float32"),
        (ElementType::Float64, "float64"),
        (ElementType::Int4, "int4"),
        (ElementType::Int8, "int8"),
        (ElementType::Int16, "int16"),
        (ElementType::Int32, "int32"),
        (ElementType::Int64, "int64"),
        (ElementType::UInt4, "uint4"),
        (ElementType::UInt8, "uint8"),
        (ElementType::UInt16, "uint16"),
        (ElementType::UInt32, "uint32"),
        (ElementType::UInt64, "uint64"),
        (ElementType::Bool, "bool"),
    ];

    /// The name in a query.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|t| t.0 == self).map_or("", |t| t.1)
    }

    /// Whether its elements need not be integers.
    pub fn is_float(self) -> bool {
        use ElementType::{BFloat16, Float16, Float32, Float64, Real};
        matches!(self, Real | Float16 | BFloat16 | Float32 | Float64)
    }

    fn parse(word: &str) -> Option<ElementType> {
        // Early files write `Real`.
        let named = |t: &&(ElementType, &str)| t.1 == word || (t.0 == ElementType::Real && word == "Real");
        Self::ALL.iter().find(named).map(|t| t.0)
    }
}

/// A declared input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Its name; `X` or `Y` in version 1.0.
    pub name: String,
    /// Type of its elements.
    pub element: ElementType,
    /// Dimensions; none for a scalar.
    pub shape: Vec<usize>,
}

impl Tensor {
    /// Number of elements.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a declaration says of its model and an earlier one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Equivalence {
    /// It is the same model as that of this network.
    EqualTo(usize),
    /// It has the same graph, with other weights.
    IsomorphicTo(usize),
}

/// A declared network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name; empty in version 1.0, where any name will do.
    pub name: String,
    /// How it relates to an earlier network.
    pub same: Option<Equivalence>,
    /// Inputs, in the model's order.
    pub inputs: Vec<Tensor>,
    /// Outputs, in the model's order.
    pub outputs: Vec<Tensor>,
}

impl Network {
    /// The tensors of one side.
    pub fn tensors(&self, side: Side) -> &[Tensor] {
        match side {
            Side::Input => &self.inputs,
            Side::Output => &self.outputs,
        }
    }

    /// A tensor.
    pub fn tensor(&self, side: Side, tensor: usize) -> &Tensor {
        &self.tensors(side)[tensor]
    }
}

/// Where a tensor stands in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Among its inputs.
    Input,
    /// Among its outputs.
    Output,
}

/// One element of one tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variable {
    /// Position in [`Spec::networks`].
    pub network: usize,
    /// Input or output.
    pub side: Side,
    /// Position in the network's inputs or outputs.
    pub tensor: usize,
    /// Position in row-major order.
    pub element: usize,
}

/// How a sum compares with a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// <=
    LessEqual,
    /// <
    Less,
    /// =
    Equal,
}

impl Relation {
    fn holds(self, left: &Decimal, right: &Decimal) -> bool {
        match self {
            Relation::LessEqual => left <= right,
            Relation::Less => left < right,
            Relation::Equal => left == right,
        }
    }
}

/// sum of coefficient * element (relation) bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// In increasing order of the elements, none twice, no coefficient zero; at least one.
    pub terms: Vec<(Variable, Decimal)>,
    /// The relation.
    pub relation: Relation,
    /// The bound.
    pub bound: Decimal,
    /// Whether the text adds or multiplies: machine arithmetic might round there.
    pub computed: bool,
}

/// A query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The language it was written in.
    pub version: Version,
    /// The networks.
    pub networks: Vec<Network>,
    /// Every constraint, which the lists below number.
    pub constraints: Vec<Constraint>,
    /// Constraints that hold in every case.
    pub always: Vec<u32>,
    /// At least one of these holds; without cases nothing satisfies the query.
    pub cases: Vec<Vec<u32>>,
}

impl Spec {
    /// The constraints of a list.
    pub fn listed(&self, list: &[u32]) -> impl Iterator<Item = &Constraint> {
        list.iter().map(|&i| &self.constraints[i as usize])
    }

    /// The tensor of an element.
    pub fn tensor(&self, v: Variable) -> &Tensor {
        self.networks[v.network].tensor(v.side, v.tensor)
    }

    /// How the query writes an element: `X[0,3]`, `X`, `X_3`.
    pub fn shown(&self, v: Variable) -> String {
        write::element(self, v)
    }
}
