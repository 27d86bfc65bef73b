#!/usr/bin/env bash
# Every command behind results/SIPADMEK_64: cells of Pap smears at 64 px, five classes and three, from the folder that Kaggle
# serves to the tables. Each one goes on where it was interrupted.
#
#   results/SIPADMEK_64/reproduce.sh DIR        DIR holds im_Dyskeratotic/ …; about 8 hours of one CPU core
set -euo pipefail
source=$(realpath "${1:?give the folder that holds im_Dyskeratotic/ …}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PWD/.venv/bin:$PATH"
results=results/SIPADMEK_64 best=best.pth.tar

tables=()
for scheme in five three; do
    out=runs/SIPADMEK_64/$scheme
    data=(--dataset SIPADMEK --data_dir "$out/Dataset")
    # ---- data and models ----
    [ -f "$out/Dataset/SIPADMEK/manifest.csv" ] || python prepare_data.py "${data[@]}" --source "$source" \
        $([ $scheme = five ] || echo --label_scheme three)
    python train_classifier.py "${data[@]}" --optimizer SGD --lr 0.05 --weight_decay 5e-4 --epochs 50 --outdir "$out/classifier" --resume
    python ds_main.py "${data[@]}" --noise_sd 0.2 1.1 --epochs 40 --outdir "$out/mse" --resume
    python evaluate.py "${data[@]}" --classifier "$out/classifier/$best" --outfile $results/clean_$scheme.json
    # ---- certificates: every second test image, as many draws as the radii in the tables need ----
    for sigma in 0.25 0.5 1.0; do
        python main_ds.py "${data[@]}" --classifier "$out/classifier/$best" --pretrained_denoiser "$out/mse/$best" \
            --mse_weight 10 --lr 1e-4 --noise_sd $sigma --epochs 25 --outdir "$out/stability_$sigma" --resume
        certify=(AE_DS_verify.py "${data[@]}" --sigma $sigma --N 2000 --skip 2 --classifier "$out/classifier/$best")
        name=$results/${scheme}
        python "${certify[@]}" --outfile "${name}_classifier_sigma_$sigma.tsv"
        python "${certify[@]}" --denoiser "$out/mse/$best" --outfile "${name}_mse_sigma_$sigma.tsv"
        python "${certify[@]}" --denoiser "$out/stability_$sigma/$best" --outfile "${name}_stability_sigma_$sigma.tsv"
        tables+=("$scheme classes, alone=${name}_classifier_sigma_$sigma.tsv"
            "$scheme classes, + MSE denoiser=${name}_mse_sigma_$sigma.tsv"
            "$scheme classes, + stability denoiser=${name}_stability_sigma_$sigma.tsv")
    done
done
python make_tables.py --add "${tables[@]}" --radii 0 0.25 0.5 0.75 1.0 --outdir $results
