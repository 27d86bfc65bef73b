#!/usr/bin/env bash
# Everything in this folder: certificates attacked within and beyond their radii, and the empirical tables.
#
#   results/Brain_Tumor_64/attacks/reproduce.sh     about 6 hours of one CPU core; goes on where it was interrupted
#
# Needs Brain Tumor prepared (protocol stratified), the models of configs/brain_tumor_64.yaml and its table `fixed`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
export PATH="$PWD/.venv/bin:$PATH"
own=checkpoints/Brain_Tumor_64 out=results/Brain_Tumor_64/attacks
f="--classifier $own/classifier.pth.tar"

# ---- every image of both splits, attacked in one command ----
[ -f $out/generate.txt ] || # what it printed, with the time it took
    python attacks/generate.py $f --attack FGSM PGD DDN --split train test --steps 30 >$out/generate.txt
python attacks/generate.py $f --attack PGD --norm L2 --split test --steps 30

# ---- are the certificates true? ----
for sigma in 0.25 0.5; do
    [ -f $out/check_sigma_$sigma.tsv.summary.json ] ||
        python attacks/check_certificates.py $f --pretrained_denoiser $own/stability_$sigma.pth.tar \
            --certificates results/Brain_Tumor_64/stability_sigma_$sigma.tsv --skip 2 --multiples 0.5 0.9 1.0 1.5 2.5 \
            --steps 20 --draws 16 --N 500 --batch 96 --outfile $out/check_sigma_$sigma.tsv
done

# ---- pipelines under attack: as they are, and smoothed at sigma 0.25 ----
declare -A flags=(
    [classifier]="$f"
    [gaussian]="--classifier runs/Brain_Tumor_64/gaussian_0.25/best.pth.tar"
    [mse]="$f --denoiser $own/mse.pth.tar"
    [stability]="$f --denoiser $own/stability_0.25.pth.tar"
    [consistency]="$f --denoiser $own/consistency_0.25.pth.tar"
)
declare -A names=(
    [classifier]="classifier alone" [gaussian]="Gaussian-augmented classifier" [mse]="+ MSE denoiser"
    [stability]="+ stability denoiser" [consistency]="+ stability and consistency"
)
L2="--attack PGD --norm L2 --eps 0.5"
plain=() smoothed=()
for key in classifier mse stability consistency gaussian; do
    p=${flags[$key]}
    # adaptive: on the pipeline itself, on its expected loss over noise (32 draws), and from its labels alone (2,500 queries
    # an image); what looks for the boundary is judged in the precision in which it was made
    python attacks/generate.py $p $L2 --steps 30 --suffix _$key
    python attacks/generate.py $p --target smoothed --noise_sd 0.25 --amp $L2 --steps 20 --draws 32 --batch 128 --skip 6 \
        --suffix _${key}_smoothed
    python attacks/generate.py $p --attack QEBA --steps 10 --max_norm 0.5 --skip 6 --amp --suffix _$key
    for images in clean=test FGSM=FGSM PGD-Linf=PGD PGD-L2=PGD_L2 DDN=DDN \
        "adaptive PGD-L2"=PGD_L2_$key decision-based=QEBA_$key; do
        split=${images#*=} report=$out/plain/${key}_${images#*=}.json
        [ -f $report ] || python evaluate.py $p --split $split --denoiser_sd 0.25 --outfile $report \
            $([[ $split == QEBA_* ]] && echo --amp || echo --no-amp)
        plain+=("${names[$key]}:${images%=*}=$report")
    done
    for images in clean=test FGSM=FGSM PGD-Linf=PGD PGD-L2=PGD_L2 DDN=DDN \
        "adaptive PGD-L2"=PGD_L2_${key}_smoothed decision-based=QEBA_$key; do
        split=${images#*=} report=$out/smoothed/${key}_${images#*=}.json
        # the sets of the adaptive attacks hold every sixth test image already
        skip=$([[ $split == *_smoothed || $split == QEBA_* ]] && echo 1 || echo 6)
        [ -f $report ] || python evaluate.py $p --split $split --skip $skip --noise_sd 0.25 --N 500 --batch 128 --amp \
            --outfile $report
        smoothed+=("${names[$key]}:${images%=*}=$report")
    done
done
for folder in Dataset/Brain_Tumor/AT_*; do
    gzip -nc9 $folder/manifest.csv >$out/$(basename $folder).csv.gz
done
rm -f $out/*/*_*.csv $out/*/*_*.png # beside each report; the figures are of confusion, not of robustness
python make_tables.py --empirical "${plain[@]}" --outdir $out/plain
python make_tables.py --empirical "${smoothed[@]}" --outdir $out/smoothed
