//! HiGHS, loaded from its shared library at run time; with `net/gemm.rs` and `model/tflite/schema.rs` the only `unsafe` of the library.
//!
//! What is trusted: that a library which says that it is HiGHS 1.x with 32-bit integers keeps to the C interface of HiGHS 1
//! (`highs_c_api.h`) and to the memory it is given. No number that it returns is.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libloading::Library;

use super::solver::{MilpAnswer, MilpStatus, Relaxation, RelaxationAnswer, Solver};
use super::{NotFound, Program, find_highs};

/// Why HiGHS cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum HighsError {
    #[error(transparent)]
    NotFound(#[from] NotFound),
    #[error("{}: the library cannot be loaded: {cause}", path.display())]
    Load { path: PathBuf, cause: String },
    #[error("{}: {found} instead of HiGHS 1.x with integers of 4 bytes", path.display())]
    Version { path: PathBuf, found: String },
}

/// A loaded HiGHS library.
#[derive(Clone, Debug)]
pub struct Highs {
    /// Never unloaded: its worker threads may outlive every solver.
    api: &'static Api,
}

type Model = *mut c_void;
type Status = c_int;
type SetNumber<T> = unsafe extern "C" fn(Model, *const c_char, T) -> Status;

/// The functions of the C interface that are used, by their names there.
#[derive(Debug)]
struct Api {
    version: String,
    /// Bytes of an integer.
    integer_size: c_int,
    create: unsafe extern "C" fn() -> Model,
    destroy: unsafe extern "C" fn(Model),
    set_bool: SetNumber<c_int>,
    set_int: SetNumber<c_int>,
    set_double: SetNumber<f64>,
    set_string: SetNumber<*const c_char>,
    pass: PassMip,
    change_bounds: unsafe extern "C" fn(Model, c_int, f64, f64) -> Status,
    zero_clocks: unsafe extern "C" fn(Model) -> Status,
    run: unsafe extern "C" fn(Model) -> Status,
    status: unsafe extern "C" fn(Model) -> c_int,
    solution: unsafe extern "C" fn(Model, *mut f64, *mut f64, *mut f64, *mut f64) -> Status,
    dual_ray: unsafe extern "C" fn(Model, *mut c_int, *mut f64) -> Status,
    int_info: unsafe extern "C" fn(Model, *const c_char, *mut c_int) -> Status,
    double_info: unsafe extern "C" fn(Model, *const c_char, *mut f64) -> Status,
}

/// Columns, rows, coefficients, format, sense, offset; costs and bounds of columns; bounds of rows; starts, indices, values; integrality.
type PassMip = unsafe extern "C" fn(
    Model,
    c_int,
    c_int,
    c_int,
    c_int,
    c_int,
    f64,
    *const f64,
    *const f64,
    *const f64,
    *const f64,
    *const f64,
    *const c_int,
    *const c_int,
    *const f64,
    *const c_int,
) -> Status;

const ROWWISE: c_int = 2;
const MINIMIZE: c_int = 1;
const ERROR: Status = -1;
const OPTIMAL: c_int = 7;
const INFEASIBLE: c_int = 8;
const TIME_LIMIT: c_int = 13;
const FEASIBLE_POINT: c_int = 2;

impl Highs {
    /// Loads HiGHS from a path, or from the package `highspy` of `python3` where none is given.
    ///
    /// # Errors
    /// If there is no such library, or it is not HiGHS 1.x with 32-bit integers.
    pub fn load(path: Option<&Path>) -> Result<Self, HighsError> {
        let path = match path {
            Some(path) => path.to_path_buf(),
            None => find_highs("python3")?,
        };
        let fault = |e: libloading::Error| HighsError::Load { path: path.clone(), cause: e.to_string() };
        // SAFETY: loading runs the library's initialisers. The user names the library, as for any program that is started.
        let library = unsafe { Library::new(&path) }.map_err(fault)?;
        // SAFETY: `load` asks only for functions of the C interface with the types that its header declares.
        let api = unsafe { Api::load(&library) }.map_err(fault)?;
        // The functions must stay where they are.
        std::mem::forget(library);
        let api: &'static Api = Box::leak(Box::new(api));
        let found = match api.integer_size {
            4 if api.version.starts_with("1.") => return Ok(Highs { api }),
            4 => format!("HiGHS {}", api.version),
            size => format!("HiGHS {} with integers of {size} bytes", api.version),
        };
        Err(HighsError::Version { path, found })
    }

    fn instance(&self, program: &Program, integrality: bool) -> Option<Instance> {
        // SAFETY: takes nothing and returns a new model or null.
        let model = unsafe { (self.api.create)() };
        let instance =
            Instance { api: self.api, model, columns: program.columns.len(), rows: program.row_count(), failed: false };
        (!model.is_null() && instance.configure() && instance.pass(program, integrality)).then_some(instance)
    }
}

impl Api {
    /// # Safety
    /// The library must have, under each name, a function of the type that HiGHS's C header declares for it.
    unsafe fn load(library: &Library) -> Result<Api, libloading::Error> {
        // SAFETY: see above; the macro copies function pointers that stay valid while the library is loaded.
        macro_rules! function {
            ($name:literal) => {
                *unsafe { library.get($name) }?
            };
        }
        let version: unsafe extern "C" fn() -> *const c_char = function!(b"Highs_version\0");
        let integer_size: unsafe extern "C" fn(Model) -> c_int = function!(b"Highs_getSizeofHighsInt\0");
        let create: unsafe extern "C" fn() -> Model = function!(b"Highs_create\0");
        let destroy: unsafe extern "C" fn(Model) = function!(b"Highs_destroy\0");
        // SAFETY: the version is a constant string that ends in a zero byte; a model is asked between its creation and its end.
        let (version, size) = unsafe {
            let model = create();
            let size = integer_size(model);
            destroy(model);
            (CStr::from_ptr(version()).to_string_lossy().into_owned(), size)
        };
        Ok(Api {
            version: version.trim_start_matches('v').to_string(),
            integer_size: size,
            create,
            destroy,
            set_bool: function!(b"Highs_setBoolOptionValue\0"),
            set_int: function!(b"Highs_setIntOptionValue\0"),
            set_double: function!(b"Highs_setDoubleOptionValue\0"),
            set_string: function!(b"Highs_setStringOptionValue\0"),
            pass: function!(b"Highs_passMip\0"),
            change_bounds: function!(b"Highs_changeColBounds\0"),
            zero_clocks: function!(b"Highs_zeroAllClocks\0"),
            run: function!(b"Highs_run\0"),
            status: function!(b"Highs_getModelStatus\0"),
            solution: function!(b"Highs_getSolution\0"),
            dual_ray: function!(b"Highs_getDualRay\0"),
            int_info: function!(b"Highs_getIntInfoValue\0"),
            double_info: function!(b"Highs_getDoubleInfoValue\0"),
        })
    }
}

impl Solver for Highs {
    fn name(&self) -> String {
        format!("HiGHS {}", self.api.version)
    }

    fn gives_evidence(&self) -> bool {
        true
    }

    fn relaxation(&self, program: &Program) -> Option<Box<dyn Relaxation>> {
        let instance = self.instance(program, false)?;
        // Presolve would take the basis and the ray away.
        let warm = instance.set_text(c"presolve", c"off") && instance.set_text(c"solver", c"simplex");
        warm.then(|| Box::new(instance) as Box<dyn Relaxation>)
    }

    fn search(&self, program: &Program, limit: Duration) -> MilpAnswer {
        let Some(instance) = self.instance(program, true) else {
            return MilpAnswer::empty(MilpStatus::Failed("HiGHS does not take the program".into()));
        };
        let status = match instance.run(limit) {
            Ok(OPTIMAL) => MilpStatus::Optimal,
            Ok(INFEASIBLE) => MilpStatus::Infeasible,
            Ok(TIME_LIMIT) => MilpStatus::Limit,
            Ok(other) => MilpStatus::Failed(format!("HiGHS ended with status {other}")),
            Err(why) => MilpStatus::Failed(why),
        };
        let found = instance.int_info(c"primal_solution_status") == FEASIBLE_POINT;
        let point = if found { instance.solution().map(|s| s.0) } else { None };
        MilpAnswer { status, point, bound: instance.double_info(c"mip_dual_bound") }
    }
}

/// One model inside HiGHS.
struct Instance {
    api: &'static Api,
    model: Model,
    columns: usize,
    rows: usize,
    /// Whether a change of bounds was refused.
    failed: bool,
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: the model came from `create` and is not used again; null is allowed.
        unsafe { (self.api.destroy)(self.model) }
    }
}

impl Instance {
    /// Silent, on one thread.
    fn configure(&self) -> bool {
        // SAFETY: the model lives, and names end in a zero byte.
        let quiet = unsafe { (self.api.set_bool)(self.model, c"output_flag".as_ptr(), 0) };
        // SAFETY: as above.
        let single = unsafe { (self.api.set_int)(self.model, c"threads".as_ptr(), 1) };
        quiet != ERROR && single != ERROR && self.set_text(c"parallel", c"off")
    }

    fn set_text(&self, option: &CStr, value: &CStr) -> bool {
        // SAFETY: the model lives, and both strings end in a zero byte.
        unsafe { (self.api.set_string)(self.model, option.as_ptr(), value.as_ptr()) != ERROR }
    }

    fn pass(&self, program: &Program, integrality: bool) -> bool {
        let of = |f: fn(&super::Column) -> f64| program.columns.iter().map(f).collect::<Vec<f64>>();
        let (cost, lo, hi) = (of(|c| c.cost), of(|c| c.lo), of(|c| c.hi));
        let (row_lo, row_hi): (Vec<f64>, Vec<f64>) = program.rows().map(|r| (r.lo, r.hi)).unzip();
        let sizes = [program.columns.len(), program.row_count(), program.nonzeros()].map(c_int::try_from);
        let [Ok(columns), Ok(rows), Ok(nonzeros)] = sizes else { return false };
        // The sizes fit, so these do.
        let starts: Vec<c_int> = (0..program.row_count()).map(|i| program.start(i) as c_int).collect();
        let indices: Vec<c_int> = program.indices().iter().map(|&j| j as c_int).collect();
        let kinds: Vec<c_int> = program.columns.iter().map(|c| c_int::from(integrality && c.integer)).collect();
        // SAFETY: the model lives; each array has as many entries as its size says (columns, rows, rows for the starts, nonzeros), and HiGHS
        // copies them.
        let status = unsafe {
            (self.api.pass)(
                self.model,
                columns,
                rows,
                nonzeros,
                ROWWISE,
                MINIMIZE,
                0.0,
                cost.as_ptr(),
                lo.as_ptr(),
                hi.as_ptr(),
                row_lo.as_ptr(),
                row_hi.as_ptr(),
                starts.as_ptr(),
                indices.as_ptr(),
                program.coefficients().as_ptr(),
                kinds.as_ptr(),
            )
        };
        status != ERROR
    }

    /// Solves within a time limit and returns the model's status.
    fn run(&self, limit: Duration) -> Result<c_int, String> {
        // SAFETY: the model lives, and the name ends in a zero byte.
        let ran = unsafe {
            (self.api.zero_clocks)(self.model);
            (self.api.set_double)(self.model, c"time_limit".as_ptr(), limit.as_secs_f64());
            (self.api.run)(self.model)
        };
        if ran == ERROR || self.failed {
            return Err("HiGHS failed".into());
        }
        // SAFETY: the model lives.
        Ok(unsafe { (self.api.status)(self.model) })
    }

    /// Values of the columns and multipliers of the rows.
    fn solution(&self) -> Option<(Vec<f64>, Vec<f64>)> {
        let mut column = [vec![0.0; self.columns], vec![0.0; self.columns]];
        let mut row = [vec![0.0; self.rows], vec![0.0; self.rows]];
        let ([value, dual], [row_value, row_dual]) = (&mut column, &mut row);
        // SAFETY: the model lives and has as many columns and rows as the arrays have entries.
        let status = unsafe {
            let (value, dual) = (value.as_mut_ptr(), dual.as_mut_ptr());
            (self.api.solution)(self.model, value, dual, row_value.as_mut_ptr(), row_dual.as_mut_ptr())
        };
        let ([value, _], [_, row_dual]) = (column, row);
        (status != ERROR).then_some((value, row_dual))
    }

    fn ray(&self) -> Option<Vec<f64>> {
        let (mut has, mut ray) = (0, vec![0.0; self.rows]);
        // SAFETY: the model lives and has as many rows as the array has entries.
        let status = unsafe { (self.api.dual_ray)(self.model, &mut has, ray.as_mut_ptr()) };
        (status != ERROR && has != 0).then_some(ray)
    }

    fn int_info(&self, name: &CStr) -> c_int {
        let mut value = 0;
        // SAFETY: the model lives, the name ends in a zero byte, and the value is written at most once.
        let status = unsafe { (self.api.int_info)(self.model, name.as_ptr(), &mut value) };
        if status == ERROR { 0 } else { value }
    }

    fn double_info(&self, name: &CStr) -> f64 {
        let mut value = f64::NEG_INFINITY;
        // SAFETY: as above.
        let status = unsafe { (self.api.double_info)(self.model, name.as_ptr(), &mut value) };
        if status == ERROR { f64::NEG_INFINITY } else { value }
    }
}

impl Relaxation for Instance {
    fn set_bounds(&mut self, column: usize, lo: f64, hi: f64) {
        // SAFETY: the model lives; a column that it does not have is an error that it reports.
        let status = unsafe { (self.api.change_bounds)(self.model, column as c_int, lo, hi) };
        self.failed |= status == ERROR;
    }

    fn solve(&mut self, limit: Duration) -> RelaxationAnswer {
        match self.run(limit) {
            Ok(OPTIMAL) => match self.solution() {
                Some((point, duals)) => RelaxationAnswer::Optimal { point, duals: Some(duals) },
                None => RelaxationAnswer::GaveUp("HiGHS gives no solution".into()),
            },
            Ok(INFEASIBLE) => RelaxationAnswer::Infeasible { ray: self.ray() },
            Ok(other) => RelaxationAnswer::GaveUp(format!("HiGHS ended with status {other}")),
            Err(why) => RelaxationAnswer::GaveUp(why),
        }
    }
}
