//! The MLPerf Tiny networks.

use super::{BTreeMap, DType, Model, Path, ReadOptions, counts, read};

fn folder() -> Option<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/mlperf-tiny");
    if !folder.is_dir() {
        println!("skipped: the larger model collection is not here");
        return None;
    }
    Some(folder)
}

/// Element type, input shape, output shape and operations.
fn outline(model: &Model) -> (DType, Vec<usize>, Vec<usize>, BTreeMap<&'static str, usize>) {
    let (&[x], &[y]) = (&model.inputs[..], &model.outputs[..]) else { panic!("not one input and output") };
    let (x, y) = (model.value(x), model.value(y));
    (x.dtype, x.shape.clone(), y.shape.clone(), counts(model))
}

/// Name, element type, input shape, output shape and operations.
type Expected = (&'static str, DType, &'static [usize], &'static [usize], &'static [(&'static str, usize)]);

#[test]
fn mlperf_tiny_networks_are_read() {
    let Some(folder) = folder() else { return };
    let expected: [Expected; 5] = [
        ("ad01_int8", DType::I8, &[1, 640], &[1, 640], &[("QGemm", 10), ("QLinearClip", 9)]),
        (
            "kws_ref_model",
            DType::I8,
            &[1, 49, 10, 1],
            &[1, 12],
            &[
                ("QGemm", 1),
                ("QLinearAveragePool", 1),
                ("QLinearClip", 9),
                ("QLinearConv", 9),
                ("QLinearSoftmax", 1),
                ("Reshape", 1),
                ("Transpose", 2),
            ],
        ),
        (
            "pretrainedResnet_quant",
            DType::I8,
            &[1, 32, 32, 3],
            &[1, 10],
            &[
                ("QGemm", 1),
                ("QLinearAdd", 3),
                ("QLinearAveragePool", 1),
                ("QLinearClip", 7),
                ("QLinearConv", 9),
                ("QLinearSoftmax", 1),
                ("Reshape", 1),
                ("Transpose", 2),
            ],
        ),
        ("ad01_fp32", DType::F32, &[1, 640], &[1, 640], &[("Gemm", 10), ("Relu", 9)]),
        (
            "pretrainedResnet",
            DType::F32,
            &[1, 32, 32, 3],
            &[1, 10],
            &[
                ("Add", 3),
                ("AveragePool", 1),
                ("Conv", 9),
                ("Gemm", 1),
                ("Relu", 7),
                ("Reshape", 1),
                ("Softmax", 1),
                ("Transpose", 2),
            ],
        ),
    ];
    for (name, dtype, input, output, operations) in expected {
        let model = read(&folder.join(format!("{name}.tflite")), &ReadOptions::default()).expect(name);
        let wanted = (dtype, input.to_vec(), output.to_vec(), operations.iter().copied().collect());
        assert_eq!(outline(&model), wanted, "{name}");
        assert_eq!((model.source.format, model.source.ir_version), ("tflite", 3));
        assert!(model.unused.is_empty(), "{name}");
    }
}

/// Its large weights are int8, its activations float32.
#[test]
fn the_float_keyword_network_is_refused_as_hybrid() {
    let Some(folder) = folder() else { return };
    let error = read(&folder.join("kws_ref_model_float32.tflite"), &ReadOptions::default()).expect_err("a hybrid file");
    let text = error.to_string();
    for part in ["(#0, CONV_2D)", "hybrid", "convert with full integer quantization"] {
        assert!(text.contains(part), "{text}");
    }
}
