#!/usr/bin/env bash
# Every command behind results/Brain_Tumor_64, from the folder that Kaggle serves to the tables. Each one goes on where it
# was interrupted; on another machine the numbers differ in the last digits, as floating point does.
#
#   results/Brain_Tumor_64/reproduce.sh DIR        DIR holds Training/ and Testing/; about 5 hours of one CPU core
set -euo pipefail
source=${1:?give the folder that holds Training/ and Testing/}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PWD/.venv/bin:$PATH"
out=runs/Brain_Tumor_64 results=results/Brain_Tumor_64 models=checkpoints/Brain_Tumor_64
best=best.pth.tar

# ---- data and models ----
python prepare_data.py --dataset Brain_Tumor --source "$source" --protocol stratified
classify=(train_classifier.py --dataset Brain_Tumor --optimizer SGD --lr 0.05 --weight_decay 5e-4 --resume)
python "${classify[@]}" --epochs 160 --outdir $out/classifier
python ds_main.py --dataset Brain_Tumor --noise_sd 0.2 1.1 --epochs 40 --outdir $out/mse --resume
for name in classifier mse; do # what is certified is what is passed on
    python export_model.py --model $out/$name/$best --outfile $models/$name.pth.tar
done
stability=(main_ds.py --dataset Brain_Tumor --classifier $models/classifier.pth.tar --pretrained_denoiser $models/mse.pth.tar
    --mse_weight 10 --lr 5e-4 --resume)
python "${stability[@]}" --noise_sd 0.25 --epochs 40 --outdir $out/stability_0.25
for sigma in 0.5 1.0; do
    python "${stability[@]}" --noise_sd $sigma --epochs 25 --outdir $out/stability_$sigma
done
for sigma in 0.25 0.5 1.0; do
    python export_model.py --model $out/stability_$sigma/$best --outfile $models/stability_$sigma.pth.tar
    python "${classify[@]}" --noise_sd $sigma --epochs 40 --outdir $out/gaussian_$sigma
done

# ---- certificates: every third image of the test split, the published fixed number of draws ----
certify=(AE_DS_verify.py --N0 100 --N 1000 --alpha 0.001 --no-sequential --skip 3)
for sigma in 0.25 0.5 1.0; do
    python "${certify[@]}" --sigma $sigma --classifier $models/classifier.pth.tar --denoiser $models/stability_$sigma.pth.tar \
        --outfile $results/stability_sigma_$sigma.tsv
    python "${certify[@]}" --sigma $sigma --classifier $models/classifier.pth.tar --denoiser $models/mse.pth.tar \
        --outfile $results/mse_sigma_$sigma.tsv
    python "${certify[@]}" --sigma $sigma --classifier $out/gaussian_$sigma/$best --outfile $results/gaussian_sigma_$sigma.tsv
    python "${certify[@]}" --sigma $sigma --classifier $models/classifier.pth.tar --outfile $results/classifier_sigma_$sigma.tsv
done

# ---- accuracy of the classifier on the whole test split, and under the official protocol ----
python evaluate.py --classifier $models/classifier.pth.tar --outfile $results/clean_stratified.json
official=runs/Brain_Tumor_64_official
python prepare_data.py --dataset Brain_Tumor --source "$source" --protocol official --data_dir $official/Dataset
python "${classify[@]}" --data_dir $official/Dataset --epochs 50 --outdir $official/classifier
for split in val test; do
    python evaluate.py --classifier $official/classifier/$best --data_dir $official/Dataset --split $split \
        --outfile $results/clean_official_$split.json
done

# ---- tables and curves ----
tables=()
for sigma in 0.25 0.5 1.0; do
    tables+=("classifier alone=$results/classifier_sigma_$sigma.tsv" "+ MSE denoiser=$results/mse_sigma_$sigma.tsv"
        "+ stability denoiser=$results/stability_sigma_$sigma.tsv"
        "Gaussian-augmented classifier=$results/gaussian_sigma_$sigma.tsv")
done
python make_tables.py --add "${tables[@]}" --radii 0 0.25 0.5 0.75 1.0 1.5 2.0 --outdir $results
