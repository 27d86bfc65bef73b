#!/usr/bin/env bash
# Every command behind results/Brain_Tumor_64, from the folder that Kaggle serves to the tables. Each one goes on where it
# was interrupted; on another machine the numbers differ in the last digits, as floating point does.
#
#   results/Brain_Tumor_64/reproduce.sh DIR        DIR holds Training/ and Testing/; about 10 hours of one CPU core
set -euo pipefail
source=$(realpath "${1:?give the folder that holds Training/ and Testing/}")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PWD/.venv/bin:$PATH"
out=runs/Brain_Tumor_64 results=results/Brain_Tumor_64 models=checkpoints/Brain_Tumor_64
best=best.pth.tar
classify=(train_classifier.py --dataset Brain_Tumor --optimizer SGD --lr 0.05 --weight_decay 5e-4 --resume)
denoise=(ds_main.py --dataset Brain_Tumor --noise_sd 0.2 1.1 --epochs 40 --resume)
stabilise=(main_ds.py --dataset Brain_Tumor --mse_weight 10 --lr 1e-4 --resume)

# ---- data and models ----
python prepare_data.py --dataset Brain_Tumor --source "$source" --protocol stratified
python "${classify[@]}" --epochs 160 --outdir $out/classifier
python "${denoise[@]}" --outdir $out/mse
for name in classifier mse; do # what is certified is what is passed on
    python export_model.py --model $out/$name/$best --outfile $models/$name.pth.tar
done
for sigma in 0.25 0.5 1.0; do
    epochs=25
    [ $sigma != 0.25 ] || epochs=30
    python "${stabilise[@]}" --classifier $models/classifier.pth.tar --pretrained_denoiser $models/mse.pth.tar \
        --noise_sd $sigma --epochs $epochs --outdir $out/stability_$sigma
    python export_model.py --model $out/stability_$sigma/$best --outfile $models/stability_$sigma.pth.tar
    python "${classify[@]}" --noise_sd $sigma --epochs 40 --outdir $out/gaussian_$sigma
done

# ---- certificates ----
certificates() { # FOLDER FLAGS…: of four pipelines at three sigma, and their table
    local folder=$1 sigma certify f tables=()
    shift
    for sigma in 0.25 0.5 1.0; do
        certify=(AE_DS_verify.py --alpha 0.001 --sigma $sigma "$@")
        f=(--classifier $models/classifier.pth.tar)
        python "${certify[@]}" "${f[@]}" --outfile "$folder/classifier_sigma_$sigma.tsv"
        python "${certify[@]}" "${f[@]}" --denoiser $models/mse.pth.tar --outfile "$folder/mse_sigma_$sigma.tsv"
        python "${certify[@]}" "${f[@]}" --denoiser $models/stability_$sigma.pth.tar \
            --outfile "$folder/stability_sigma_$sigma.tsv"
        python "${certify[@]}" --classifier $out/gaussian_$sigma/$best --outfile "$folder/gaussian_sigma_$sigma.tsv"
        tables+=("classifier alone=$folder/classifier_sigma_$sigma.tsv" "+ MSE denoiser=$folder/mse_sigma_$sigma.tsv"
            "+ stability denoiser=$folder/stability_sigma_$sigma.tsv"
            "Gaussian-augmented classifier=$folder/gaussian_sigma_$sigma.tsv")
    done
    python make_tables.py --add "${tables[@]}" --radii 0 0.25 0.5 0.75 1.0 1.5 2.0 --outdir "$folder"
}
certificates $results --N0 100 --N 1000 --no-sequential --skip 3 # the published fixed number of draws
certificates $results/sequential --N 10000 --skip 2              # as many as the radii of the table need

# ---- accuracy of the classifier on the whole test split, and under the official protocol ----
python evaluate.py --classifier $models/classifier.pth.tar --outfile $results/clean_stratified.json
official=runs/Brain_Tumor_64_official
python prepare_data.py --dataset Brain_Tumor --source "$source" --protocol official --data_dir $official/Dataset
python "${classify[@]}" --data_dir $official/Dataset --epochs 50 --outdir $official/classifier
for split in val test; do
    python evaluate.py --classifier $official/classifier/$best --data_dir $official/Dataset --split $split \
        --outfile $results/clean_official_$split.json
done

# ---- the same recipe on a split that keeps only identical images together ----
other=(--data_dir runs/Brain_Tumor_64_identical/Dataset) out=runs/Brain_Tumor_64_identical
python prepare_data.py --dataset Brain_Tumor --source "$source" "${other[@]}" --near 0.9999
python "${classify[@]}" "${other[@]}" --epochs 160 --outdir $out/classifier
python "${denoise[@]}" "${other[@]}" --outdir $out/mse
f=(--classifier $out/classifier/$best)
python "${stabilise[@]}" "${other[@]}" "${f[@]}" --pretrained_denoiser $out/mse/$best --noise_sd 0.25 --epochs 30 \
    --outdir $out/stability_0.25
python evaluate.py "${other[@]}" "${f[@]}" --outfile $results/identical/clean.json
certify=(AE_DS_verify.py --N0 100 --N 1000 --alpha 0.001 --no-sequential --skip 3 --sigma 0.25 "${other[@]}" "${f[@]}")
python "${certify[@]}" --outfile $results/identical/classifier_sigma_0.25.tsv
python "${certify[@]}" --denoiser $out/stability_0.25/$best --outfile $results/identical/stability_sigma_0.25.tsv
python make_tables.py --radii 0 0.25 0.5 --outdir $results/identical --add \
    "classifier alone=$results/identical/classifier_sigma_0.25.tsv" \
    "+ stability denoiser=$results/identical/stability_sigma_0.25.tsv"
