#!/usr/bin/env bash
# The table of training methods on brain MRI: first order and zeroth order, denoiser and autoencoder, stability, labels,
# surrogates. Goes on where it was interrupted. Data and the networks in checkpoints/Brain_Tumor_64 come from
# results/Brain_Tumor_64/reproduce.sh, as do the table's rows without training of a denoiser or with its MSE.
#
#   results/end_to_end/reproduce.sh [latents|first_order|zeroth_order|tables]…     about 17 hours of one CPU core in all
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PATH="$PWD/.venv/bin:$PATH"
out=runs/end_to_end results=results/end_to_end models=checkpoints/Brain_Tumor_64
best=best.pth.tar latent=576
classifier=(--classifier $models/classifier.pth.tar)
images=2284 # for training

train() { # NAME EPOCHS SIGMA FLAGS…: end to end in front of the classifier, from the MSE denoiser
    local name=$1 epochs=$2 sigma=$3
    shift 3
    python main_ds.py --dataset Brain_Tumor "${classifier[@]}" --pretrained_denoiser $models/mse.pth.tar --noise_sd "$sigma" \
        --epochs "$epochs" --lr 1e-4 --outdir "$out/${name}_$sigma" --resume "$@"
    certify "$name" "$sigma" --denoiser "$out/${name}_$sigma/$best"
}
certify() { # NAME SIGMA FLAGS…: every second test image
    local name=$1 sigma=$2
    shift 2
    python AE_DS_verify.py "${classifier[@]}" --sigma "$sigma" --N 2000 --skip 2 --outfile "$results/${name}_sigma_$sigma.tsv" "$@"
}

latents() { # what the bottleneck costs: classifier's accuracy on validation images that went through each autoencoder
    for numbers in 192 384 576 1152; do
        python ds_main.py --dataset Brain_Tumor --model autoencoder --latent $numbers --epochs 40 --outdir $out/ae_$numbers --resume
        python evaluate.py "${classifier[@]}" --denoiser $out/ae_$numbers/$best --split val --outfile $results/ae_$numbers.json
        tail -n 1 $out/ae_$numbers/log.txt >$results/ae_$numbers.txt
    done
}

first_order() {
    for arch in resnet34 mobilenet_v3_large; do # the surrogates
        python train_classifier.py --dataset Brain_Tumor --arch $arch --epochs 30 --outdir $out/$arch --resume
    done
    for sigma in 0.25 0.5 1.0; do
        train fo_ds_stability 25 $sigma
        train fo_ds_classification 25 $sigma --objective classification
        train surrogate_ds 25 $sigma --surrogates $out/resnet34/$best $out/mobilenet_v3_large/$best
        train fo_ae_ds 25 $sigma --model_type AE_DS --pretrained_encoder $out/ae_$latent/$best
    done
}

zeroth_order() { # 2,000 queries per training image each
    zo=(--optimization_method ZO --query_budget $((2000 * images)))
    ae=(--model_type AE_DS --pretrained_encoder $out/ae_$latent/$best)
    for method in RGE RGE_orthogonal; do
        train zo_ds_${method,,} 10 0.25 "${zo[@]}" --zo_method $method
        train zo_ae_ds_${method,,} 10 0.25 "${zo[@]}" "${ae[@]}" --zo_method $method
    done
    train zo_ae_ds_cge 10 0.25 "${zo[@]}" "${ae[@]}" --zo_method CGE --q 96
}

tables() {
    local other=results/Brain_Tumor_64/sequential sigma method rows=()
    for sigma in 0.25 0.5 1.0; do
        rows+=("no denoiser=$other/classifier_sigma_$sigma.tsv" "Gaussian-augmented classifier=$other/gaussian_sigma_$sigma.tsv"
            "DS-MSE=$other/mse_sigma_$sigma.tsv" "FO-DS stability=$results/fo_ds_stability_sigma_$sigma.tsv"
            "FO-DS classification=$results/fo_ds_classification_sigma_$sigma.tsv"
            "FO-DS stability+MSE=$other/stability_sigma_$sigma.tsv" "surrogate-DS=$results/surrogate_ds_sigma_$sigma.tsv"
            "FO-AE-DS=$results/fo_ae_ds_sigma_$sigma.tsv")
    done
    for method in RGE RGE_orthogonal; do
        rows+=("ZO-DS $method=$results/zo_ds_${method,,}_sigma_0.25.tsv")
    done
    for method in RGE RGE_orthogonal CGE; do
        rows+=("ZO-AE-DS $method=$results/zo_ae_ds_${method,,}_sigma_0.25.tsv")
    done
    python make_tables.py --add "${rows[@]}" --radii 0 0.25 0.5 0.75 1.0 --outdir $results
}

for stage in "${@:-latents first_order zeroth_order tables}"; do
    for each in $stage; do $each; done
done
