#!/usr/bin/env bash
# From nothing to certified radii and a page that shows them: set up, prepare, train, attack, certify, tabulate. A second
# call reuses what is there.
#
#   ./run.sh                                       procedural phantom MRI; minutes on two CPU cores
#   ./run.sh --dataset Brain_Tumor --source DIR    the real images (DIR holds Training/ and Testing/)
#   further flags: --protocol official|stratified, --device cpu|cuda, --outdir DIR (default runs/<dataset>)
#   LOCKED=1 ./run.sh                              with the exact versions behind the committed results
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
called_from=$PWD
cd "$root"

usage() {
    printf '%s\n' "$1" >&2
    exit 2
}

absolute() { # a path as the caller means it
    case "$1" in /*) printf '%s' "$1" ;; *) printf '%s' "$called_from/$1" ;; esac
}

dataset=Phantom_MRI protocol=() device=auto source=() out=
while [ $# -gt 0 ]; do
    case "$1" in
        --dataset | --source | --protocol | --device | --outdir) [ $# -gt 1 ] || usage "run.sh: $1 needs a value" ;;
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0" && exit ;;
        *) usage "run.sh: unknown flag $1 (see ./run.sh --help)" ;;
    esac
    case "$1" in
        --dataset) dataset=$2 ;;
        --source) source=(--source "$(absolute "$2")") ;;
        --protocol) protocol=(--protocol "$2") ;;
        --device) device=$2 ;;
        --outdir) out=$(absolute "$2") ;;
    esac
    shift 2
done
out=${out:-runs/$dataset}
mkdir -p "$out"

case "$dataset" in # enough to see it work; results/ on real images come from the longer training of configs/
    Phantom_MRI) classifier_epochs=30 mse_epochs=60 stability_epochs=40 mse_weight=50 N=1000 skip=5 ;;
    *) classifier_epochs=30 mse_epochs=95 stability_epochs=40 mse_weight=10 N=1000 skip=6 ;;
esac

# stage "what it does" WHICH command…: announce, run, and show which lines (for sed) of what the script reports.
stage() {
    local what=$1 which=$2 log
    shift 2
    log=$out/stages.log
    printf '\n→ %s\n  python%s\n' "$what" "$(printf ' %q' "$@")"
    "$python" "$@" >"$log" || exit $? # the script has said why, in one line
    sed -n "$which" "$log" | sed 's/^/✓ /'
}

started=$SECONDS
set_up
classifier=$out/classifier/best.pth.tar mse=$out/mse/best.pth.tar stability=$out/stability/best.pth.tar

stage "Prepare the images: check, find duplicates, split" '$p' \
    prepare_data.py --dataset "$dataset" ${source[@]+"${source[@]}"} ${protocol[@]+"${protocol[@]}"}
stage "Train the classifier that is to be protected" '$p' \
    train_classifier.py --dataset "$dataset" --epochs $classifier_epochs --outdir "$out/classifier" --resume --device $device
stage "Ask how often it is right, on clean test images" 1p \
    evaluate.py --classifier "$classifier" --outfile "$out/clean.json" --device $device
stage "Train a denoiser by reconstruction" '$p' \
    ds_main.py --dataset "$dataset" --noise_sd 0.2 0.6 --epochs $mse_epochs --outdir "$out/mse" --resume --device $device
stage "Train it end to end, so that the frozen classifier keeps its answers under noise" '$p' \
    main_ds.py --dataset "$dataset" --classifier "$classifier" --pretrained_denoiser "$mse" --noise_sd 0.25 0.5 \
    --objective stability --mse_weight $mse_weight --epochs $stability_epochs --outdir "$out/stability" --resume --device $device
stage "Draw what it does to noisy images" '$p' \
    ds_main.py --mode inference --pretrained_denoiser "$stability" --noise_sd 0.5 --images 10 --outdir "$out/denoised" \
    --device $device
stage "Attack the classifier: a perturbation that nobody sees" '$p' \
    attacks/generate.py --classifier "$classifier" --attack FGSM --eps 0.01 --overwrite --device $device
radii=(0 0.25 0.5 0.75 1.0)
certify=(AE_DS_verify.py --classifier "$classifier" --sigma 0.25 0.5 --radii "${radii[@]}" --N $N --skip $skip
    --device $device)
stage "Certify the classifier alone" /^sigma/p \
    "${certify[@]}" --outfile "$out/certify/classifier.tsv"
stage "Certify it behind the reconstruction denoiser" /^sigma/p \
    "${certify[@]}" --pretrained_denoiser "$mse" --outfile "$out/certify/mse.tsv"
stage "Certify it behind the end-to-end denoiser" /^sigma/p \
    "${certify[@]}" --pretrained_denoiser "$stability" --outfile "$out/certify/stability.tsv"
tables=()
for sigma in 0.25 0.5; do
    tables+=("classifier alone=$out/certify/classifier_sigma_$sigma.tsv" "+ MSE denoiser=$out/certify/mse_sigma_$sigma.tsv"
        "+ stability denoiser=$out/certify/stability_sigma_$sigma.tsv")
done
stage "Make the tables and the figure" '$p' \
    make_tables.py --add "${tables[@]}" --radii "${radii[@]}" --outdir "$out/tables"

defended=(--classifier "$classifier" --pretrained_denoiser "$stability" --device $device)
stage "Attack these certificates, at their radii and at twice of them" '$p' \
    attacks/check_certificates.py "${defended[@]}" --certificates "$out/certify/stability_sigma_0.25.tsv" \
    --multiples 1 2 --steps 8 --draws 4 --N 100 --outfile "$out/check_0.25.tsv"
stage "Attack the vote under noise, and keep the attacked images" '$p' \
    attacks/generate.py "${defended[@]}" --target smoothed --noise_sd 0.25 --attack PGD --norm L2 --eps 1 --steps 8 --draws 4 \
    --N 100 --skip $skip --suffix _smoothed --overwrite
stage "Make the page that shows all of it" '$p' \
    make_report.py --add "${tables[@]}" --radii "${radii[@]}" --empirical "classifier alone:clean=$out/clean.json" \
    --checks "$out/check_0.25.tsv" --attacks "Dataset/$dataset/AT_PGD_L2_smoothed" "Dataset/$dataset/AT_FGSM" \
    --logs "classifier=$out/classifier" "MSE denoiser=$out/mse" "stability denoiser=$out/stability" --outdir "$out/report"

printf '\nBy L2 radius, in %% of the test images (n0 = 100, at most n = %s draws, alpha = 0.001, %d min %02d s):\n\n' \
    "$N" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))
cat "$out/tables/certified_sensitivity.md"
echo
cat "$out/tables/certified_accuracy.md"
printf '\nFigure: %s\n' "$out/tables/certified_accuracy.png"
printf 'Report: %s\n' "$out/report/report.html"
