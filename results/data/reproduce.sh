#!/usr/bin/env bash
# The audits of both real sets, and what a leaky split does to a classifier's accuracy: three seeds, two splits, two sets.
#
#   results/data/reproduce.sh BRAIN CELLS     the folders that Kaggle serves; about 2 hours of one CPU core
set -euo pipefail
brain=${1:?give the folder that holds Training/ and Testing/} cells=${2:?give the folder that holds im_Dyskeratotic/ …}
brain=$(realpath "$brain") cells=$(realpath "$cells")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PWD/.venv/bin:$PATH"
out=runs/data results=results/data
mkdir -p $out

for name in Brain_Tumor SIPADMEK; do
    source=$brain
    [ $name = Brain_Tumor ] || source=$cells
    for seed in 0 1 2; do
        for split in clean leaky; do
            data=$out/${name}_${split}_$seed
            flags=(--dataset $name --seed $seed --data_dir "$data/Dataset")
            [ -f "$data/Dataset/$name/manifest.csv" ] ||
                python prepare_data.py "${flags[@]}" --source "$source" $([ $split = clean ] || echo --leaky) >"$data.txt"
            python train_classifier.py "${flags[@]}" --epochs 30 --outdir "$data/classifier" --resume
            python evaluate.py "${flags[@]}" --classifier "$data/classifier/best.pth.tar" \
                --outfile $results/${name}_${split}_$seed.json
        done
    done
    cp "$out/${name}_clean_0/Dataset/$name/audit.csv" "$results/${name}_audit.csv"
done
rm -f $results/*_[012].csv $results/*_[012].png # beside each report; the table and the chart are of accuracies
python $results/summary.py
