#!/bin/bash
# Rows of predict.py and scale.py on a machine with an NVIDIA GPU, in 8 minutes at most. Nothing is
# downloaded: python3 has torch, onnx and NumPy, and the folder WHEELS has the rest, which gives
#     pip download -d wheels --only-binary :all: '.[onnx]' onnxruntime-gpu segmentation-models-pytorch
#
#     WHEELS=wheels OUT=figures bash bench/gpu.sh [SIDE [SCALE_SIDE]]
#
# A row that fails or takes too long leaves a log with the stacks of its threads; the others run.
# Without a GPU it runs the rows of the processor: a rehearsal with small sides.
set -u
side=${1:-10000} scale_side=${2:-20480}
bench=$(cd "$(dirname "$0")" && pwd) out=$(realpath -m "${OUT:?}") work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
mkdir -p "$out"
export PYTHONFAULTHANDLER=1 PYTHONPATH=$work/site:${bench%/*}/src${PYTHONPATH:+:$PYTHONPATH}
if [ -n "${WHEELS:-}" ]; then
    python3 -m pip install -q --no-index --no-deps --target "$work/site" "$WHEELS"/*.whl || exit 1
fi
rows=(ours tuned) engine=()
if command -v nvidia-smi >/dev/null; then
    rows=(ours ours_cuda ours_cuda_fp32 tuned_cuda)
    engine=(--engine onnxruntime-cuda --precision fp32)
    nvidia-smi --query-gpu=timestamp,name,utilization.gpu,memory.used --format=csv -l 1 \
        >"$out/gpu_load.csv" &
fi

run() { # name, seconds, script, arguments: its JSON, or its log
    local name=$1 seconds=$2 left=$((470 - SECONDS))
    shift 2
    ((seconds = seconds < left ? seconds : left, seconds > 0)) || { echo "$name: no time left"; return; }
    if timeout -s ABRT -k 5 "$seconds" python3 "$bench/$1" --work "$work" "${@:2}" \
        >"$work/json" 2>"$work/log"; then
        cp "$work/json" "$out/$name.json"
        echo "$name: $SECONDS s"
    else
        tail -c 20000 "$work/log" >"$out/$name.log"
        echo "$name: failed, see $name.log"
    fi
}

for row in "${rows[@]}"; do run "$row" 150 predict.py --size "$side" --rows "$row"; done
run scale 200 scale.py --sizes "$scale_side" --cell "$((scale_side / 4))" "${engine[@]}"
