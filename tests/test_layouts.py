"""How folders are read: as people lay out their images, each layout rightly, or stopped with the flag that decides."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from preparation.sources import Reading, find_images


def lay_out(root: Path, tree: str) -> Path:
    """Empty files in the folders of `tree`, `train/a 3, b/x.png`: so many, or one; nothing opens them."""
    for each in tree.split(", "):
        folder, _, count = each.rpartition(" ")
        for name in [f"{folder}/{i:02d}.png" for i in range(int(count))] if count.isdecimal() else [each]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    return root


def read(root: Path, **reading) -> str:
    """`a 5, b 5; train 6, test 4`: the classes in their order and the splits, each with its images."""
    records, classes = find_images(root, None, reading=Reading(**reading))
    counts = Counter(record.class_name for record in records)
    splits = Counter(record.source_split for record in records)
    parts = [
        [(name, counts[name]) for name in classes],
        [(s, splits[s]) for s in ("train", "val", "test") if splits[s]],
    ]
    return "; ".join(", ".join(f"{name} {count}" for name, count in part) for part in parts if part)


def cases(text: str) -> list:
    """The blocks of lines between empty ones, the first of each its name."""
    blocks = [[line.strip() for line in block.strip().splitlines()] for block in text.split("\n\n")]
    return [pytest.param(*lines, id=name) for name, *lines in blocks]


# ---- read without a question -----------------------------------------------------------------------------------------

TWO = """train, test
Training, Testing
TRAIN, TEST
training_set, test_set
Train_Data, Test_Data
train_images, test_images
TrainingData, TestingData
trainset, testset
train-1, test-1
01_train, 02_test
train dataset, holdout
trn, tst
brain_mri_train, brain_mri_test
OCT2017 train, OCT2017 test
kaggle/Train, kaggle/Test
training_set/training_set, test_set/test_set
seg_train/seg_train, seg_test/seg_test
train/train, test
train/images, test/images
train/animals, test/animals
archive/train, archive/test
archive/Data/Data/train, archive/Data/Data/test
OCT2017 /train, OCT2017 /test
train_test_split/train, train_test_split/test
my_test_images/train, my_test_images/test
train, eval
trainval, test
Train 80%, Test 20%
data (1)/data/train (1), data (1)/data/test (1)"""


@pytest.mark.parametrize("names", TWO.splitlines())
def test_folders_of_published_splits(names, tmp_path):
    train, test = names.split(", ")
    lay_out(tmp_path, f"{train}/a 3, {train}/b 3, {test}/a 2, {test}/b 2")
    assert read(tmp_path) == "a 5, b 5; train 6, test 4"


READ = """
    validation
    train/a 3, train/b 3, val_set/a 1, val_set/b 1, test/a 2, test/b 2
    a 6, b 6; train 6, val 2, test 4

    dev
    train/a 3, train/b 3, dev/a 1, dev/b 1, test/a 2, test/b 2
    a 6, b 6; train 6, val 2, test 4

    eval beside test
    train/a 3, train/b 3, eval/a 1, eval/b 1, test/a 2, test/b 2
    a 6, b 6; train 6, val 2, test 4

    validation alone
    train/a 3, train/b 3, validation_data/a 2, validation_data/b 2
    a 5, b 5; train 6, val 4

    several folders of training
    train_1/a 3, train_1/b 1, train_2/a 1, train_2/b 3, test/a 1, test/b 1
    a 5, b 5; train 8, test 2

    one split
    train/a 5, train/b 5
    a 5, b 5; train 10

    a class that testing lacks
    train/a 5, train/b 4, test/b 1
    a 5, b 5; train 9, test 1

    documents beside the splits
    train/a 3, train/b 3, test/a 2, test/b 2, docs/read.me
    a 5, b 5; train 6, test 4

    classes of a split called by numbers
    train/0 5, train/1 3, test/1 2
    0 5, 1 5; train 8, test 2

    patients in the classes of splits
    train/a/p01 3, train/b/p02 3, test/a/p03 2, test/b/p04 2
    a 5, b 5; train 6, test 4

    splits within classes
    a/train 3, a/test 2, b/train 3, b/test 2
    a 5, b 5; train 6, test 4

    splits within classes by other names
    a/Training_set 3, a/Test_set 2, b/Training_set 3, b/Test_set 2
    a 5, b 5; train 6, test 4

    splits and more within classes
    a/train 3, a/test 2, b/train 3, b/test 2, a/x.png
    a 6, b 5; train 6, test 4

    classes
    a 5, b 5
    a 5, b 5

    hidden and foreign files
    a 5, b 5, .git/x.png, __MACOSX/a/x.png, a/@eaDir/x.png, a/._x.png, a/read.txt
    a 5, b 5

    a wrapper
    archive/a 5, archive/b 5
    a 5, b 5

    wrappers
    archive/My Data/images/a 5, archive/My Data/images/b 5, archive/read.me
    a 5, b 5

    the wrapper called process
    process/a 5, process/b 5
    a 5, b 5

    a class called process
    process 5, b 5
    b 5, process 5

    images in each class
    a/images 5, b/images 5
    a 5, b 5

    images in one class
    a 5, b/images 5
    a 5, b 5

    the class again
    a 5, b/b 5
    a 5, b 5

    the class again in other words
    a 5, bad_cell/BadCell_images 5
    a 5, bad_cell 5

    patients
    a/patient1 3, a/patient2 2, b/patient1 2, b/patient2 3
    a 5, b 5

    numbered patients
    a/001 3, a/002 2, b/001 2, b/003 3
    a 5, b 5

    patients of one class
    a 5, b/case_7 2, b/case_8 3
    a 5, b 5

    codes of patients
    a/TCGA-02-0001 3, a/TCGA-02-0003 2, b/TCGA-02-0007 5
    a 5, b 5

    magnifications
    a/40X 3, a/100X 2, b/40X 2, b/100X 3
    a 5, b 5

    one name in every class
    a/SOB 5, b/SOB 5
    a 5, b 5

    more in a class
    a 4, a/more 1, b 5
    a 5, b 5

    numbers
    0 5, 1 5, 2 5, 10 5
    0 5, 1 5, 2 5, 10 5

    grades
    grade_1 5, grade_2 5, grade_10 5
    grade_1 5, grade_2 5, grade_10 5

    grades of images
    grade_1_images 5, grade_2_images 5
    grade_1_images 5, grade_2_images 5

    a test that is no split
    test_positive 5, test_negative 5
    test_negative 5, test_positive 5

    words that begin as splits do
    testis 5, trainer 5, valve 5
    testis 5, trainer 5, valve 5

    masks that faces wear
    with_mask 5, without_mask 5, with_mask/with_mask_1.png
    with_mask 6, without_mask 5

    a lesion or none
    lesion 5, normal 5
    lesion 5, normal 5

    names that tell the class
    a/lesion_1.png, a/lesion_2.png, a/seg_1.png, b/1.png, b/2.png
    a 3, b 2

    images named in the folders
    tumor_images 5, normal_images 5
    normal_images 5, tumor_images 5

    folders of their own in each class
    colon/aca 3, colon/n 2, lung/scc 5
    colon 5, lung 5

    a folder of photographs in CROPPED
    a/CROPPED 5, a 3, b/CROPPED 5
    a 5, b 5
"""


@pytest.mark.parametrize(("tree", "right"), cases(READ))
def test_layouts_without_a_question(tree, right, tmp_path):
    assert read(lay_out(tmp_path, tree)) == right


# ---- stopped, and what the flags make of it --------------------------------------------------------------------------

ASKED = """
    folds
    fold1/a 3, fold1/b 2, fold2/a 2, fold2/b 3
    read in two ways
    --layout classes: fold1 5, fold2 5
    --layout splits: a 5, b 5

    splits within folds
    fold1/train/a 2, fold1/train/b 2, fold1/test/a 1, fold1/test/b 1, fold2/train/a 4, fold2/test/b 4
    read in two ways
    --layout splits: a 7, b 7; train 8, test 6

    parts by names of their own
    hospital A/sick 3, hospital A/well 2, hospital B/sick 2, hospital B/well 3
    read in two ways
    --layout classes: hospital A 5, hospital B 5
    --layout splits: sick 5, well 5

    splits in another language
    Trainingsdaten/a 3, Trainingsdaten/b 3, Prüfung/a 2, Prüfung/b 2
    read in two ways
    --layout splits: a 5, b 5

    a split and the class in one name
    train_benign 3, test_benign 2, train_malignant 3, test_malignant 2
    read in two ways
    --layout splits: benign 5, malignant 5; train 6, test 4
    --layout classes: test_benign 2, test_malignant 2, train_benign 3, train_malignant 3

    domains
    trainA 3, trainB 3, testA 2, testB 2
    read in two ways
    --layout splits: a 5, b 5; train 6, test 4

    parts without classes
    images_part_1 5, images_part_2 5
    parts of one set
    --layout classes: images_part_1 5, images_part_2 5

    numbered folders of images
    images_001/images 5, images_002/images 5
    parts of one set
    --layout classes: images_001 5, images_002 5

    patients without classes
    patient_1 5, patient_2 5
    parts of one set
    --layout classes: patient_1 5, patient_2 5

    patients first
    patient1/a 5, patient2/b 5
    read in two ways
    --layout splits: a 5, b 5

    numbered patients first
    001/a 5, 002/b 3, 003/b 2
    read in two ways
    --layout splits: a 5, b 5
    --layout classes: 001 5, 002 3, 003 2

    images of another task
    imagesTr 5, imagesTs 2, labelsTr 5
    called like masks
    --keep_masks --layout classes: imagesTr 5, imagesTs 2, labelsTr 5

    copies of all classes in a folder beside them
    yes 5, no 5, brain_tumor_dataset/yes 5, brain_tumor_dataset/no 5
    read in two ways
    --layout innermost: no 10, yes 10

    testing images without classes
    train/a 5, train/b 5, test 3
    no folder of a class
    --leave_out test: a 5, b 5; train 10

    classes below groups of classes
    labeled/lower-gi/landmarks/cecum 2, labeled/lower-gi/findings/polyps 2, labeled/upper-gi/landmarks/z-line 3, \
        labeled/upper-gi/findings/esophagitis 3
    read in three ways
    --layout classes: lower-gi 4, upper-gi 6
    --layout splits: findings 5, landmarks 5
    --layout innermost: cecum 2, esophagitis 3, polyps 2, z-line 3

    a copy of the set within it
    cell_images/sick 2, cell_images/well 2, cell_images/cell_images/sick 2, cell_images/cell_images/well 2
    read in two ways
    --layout innermost: sick 4, well 4

    a part of testing beside it
    TRAIN/a 3, TRAIN/b 3, TEST/a 2, TEST/b 2, TEST_SIMPLE/a 1, TEST_SIMPLE/b 1
    no split as TEST/ is
    --leave_out TEST_SIMPLE: a 5, b 5; train 6, test 4

    a set of parts, one called as validation
    NCT-CRC-HE-100K/ADI 3, NCT-CRC-HE-100K/TUM 3, CRC-VAL-HE-7K/ADI 2, CRC-VAL-HE-7K/TUM 2
    read in two ways
    --layout splits: ADI 5, TUM 5; val 4

    the class in the name of the study
    train/XR_ELBOW/patient00011/study1_negative 2, train/XR_HAND/patient00012/study1_negative 2, \
        train/XR_HAND/patient00013/study1_positive 2
    read in two ways
    --layout splits: XR_ELBOW 2, XR_HAND 4; train 6

    classes in training alone
    train/n01/images 3, train/n02/images 3, val/images 2, test/images 2
    splits hold other classes
    --leave_out val test: n01 3, n02 3; train 6

    folds without classes
    fold_1 5, fold_2 5
    parts of one set
    --layout classes: fold_1 5, fold_2 5

    folders of files
    original 5, augmented 5
    as no class is
    --layout classes: augmented 5, original 5

    a class beside two in one folder
    normal 5, tumor/benign 2, tumor/malignant 3
    read in two ways
    --layout classes: normal 5, tumor 5
    --layout innermost: benign 2, malignant 3, normal 5

    a class one folder deeper
    a 5, b 5, archive2/c 5
    read in two ways
    --layout innermost: a 5, b 5, c 5
    --layout classes: a 5, archive2 5, b 5

    a class within another
    a 5, b 5, b/c 5
    read in two ways
    --layout innermost: a 5, b 5, c 5
    --layout classes: a 5, b 10

    a class deeper in the splits
    train/a 3, train/other/b 3, test/a 2, test/other/b 2, train/c 1
    read in two ways
    --layout splits: a 5, c 1, other 5; train 7, test 4
    --layout innermost: a 5, b 5, c 1; train 7, test 4

    views of several classes
    a/axial 3, a/coronal 2, b/axial 2, b/coronal 3
    read in two ways
    --layout classes: a 5, b 5
    --layout splits: axial 5, coronal 5

    sites within splits
    train/siteA/a 3, train/siteA/b 3, train/siteB/a 1, train/siteB/b 1, test/siteA/a 2, test/siteA/b 2
    read in two ways
    --layout innermost: a 6, b 6; train 8, test 4

    classes of other names in testing
    train/adeno_left_T2 3, train/normal 3, test/adeno 2, test/normal 2
    splits hold other classes
    --layout splits: adeno 2, adeno_left_T2 3, normal 5; train 6, test 4

    something beside the splits
    train/a 3, train/b 3, test/a 2, test/b 2, pred/x.png
    no split as test/ is
    --leave_out pred: a 5, b 5; train 6, test 4

    a class called as a split
    valid 5, invalid 5
    no split as valid/ is
    --layout classes: invalid 5, valid 5

    images in no class of a split
    train 3, test 2
    no folder of a class
    --keep_masks --layout classes: test 2, train 3

    an image in no class
    a 5, b 5, preview.png
    no folder of a class
    --leave_out preview.png: a 5, b 5

    masks beside the images
    a/1.png, a/1_mask.png, a/2.png, a/2_mask.png, b/1.png, b/1_mask.png
    called like masks
    --leave_out *_mask*: a 2, b 1
    --keep_masks: a 4, b 2

    several masks of an image
    archive/Dataset_BUSI_with_GT/a/a (1).png, archive/Dataset_BUSI_with_GT/a/a (1)_mask.png, \
        archive/Dataset_BUSI_with_GT/a/a (1)_mask_1.png, archive/Dataset_BUSI_with_GT/b/b (1).png
    called like masks
    --leave_out *_mask*: a 1, b 1

    masks in folders of their own
    a/images 5, a/masks 5, b/images 5, b/masks 5
    called like masks
    --leave_out masks: a 5, b 5

    masks of all classes in one folder
    a/x.png, a/y.png, b/z.png, masks/x.png, masks/y.png, masks/z.png
    called like masks
    --leave_out masks: a 2, b 1

    masks of parts
    train/a 3, train/b 3, train_masks/a 3, train_masks/b 3, test/a 2, test/b 2
    called like masks
    --leave_out train_masks: a 5, b 5; train 6, test 4

    masks called as they like
    a/images/x.png, a/GroundTruth/y.png, b/images/z.png, b/GroundTruth/w.png
    called like masks
    --leave_out GroundTruth: a 1, b 1

    masks below the images
    a 5, a/annotations 5, b 5, b/annotations 5
    called like masks
    --leave_out annotations: a 5, b 5

    masks above the classes
    images/a 5, images/b 5, masks/a 5, masks/b 5
    called like masks
    --leave_out masks: a 5, b 5

    masks of each class beside it
    a 5, a_mask 5, b 5, b_mask 5
    called like masks
    --leave_out a_mask b_mask: a 5, b 5
    --keep_masks: a 5, a_mask 5, b 5, b_mask 5

    masks in splits
    train/a/images 3, train/a/labels 3, train/b/images 3, train/b/labels 3, test/a/images 2, test/b/images 2
    called like masks
    --leave_out labels: a 5, b 5; train 6, test 4

    masks that begin with the word
    a/001.png, a/mask_001.png, b/image_7.png, b/mask_7.png
    called like masks
    --leave_out mask*: a 1, b 1

    masks of volumes
    a/BraTS_001_t1.png, a/BraTS_001_flair.png, a/BraTS_001_seg.png, b/BraTS_002_t1.png, b/BraTS_002_seg.png
    called like masks
    --leave_out *_seg*: a 2, b 1

    masks in mixed case
    a/X.png, a/X_Mask.png, b/Y.PNG, b/Y-GT.PNG
    called like masks
    --leave_out *_Mask* *-GT*: a 1, b 1

    a set that is segmented, not classified
    images 5, masks 5
    called like masks
    --keep_masks --layout classes: images 5, masks 5
"""


@pytest.mark.parametrize("lines", [pytest.param(each.values, id=each.id) for each in cases(ASKED.replace("\\\n", ""))])
def test_layouts_that_are_stopped(lines, tmp_path):
    tree, words, *flags = lines
    root = lay_out(tmp_path, re.sub(r", \s+", ", ", tree))
    with pytest.raises(ValueError, match=words) as stopped:
        read(root)
    message = str(stopped.value)
    assert message.startswith(str(root))
    assert "\n" not in message
    for flag, right in (each.split(": ", 1) for each in flags):
        given = flag.split()
        assert given[0] in message or given[0] == "--keep_masks"
        reading = {"keep_masks": "--keep_masks" in given}
        if "--layout" in given:
            reading["layout"] = given[given.index("--layout") + 1]
        if "--leave_out" in given:
            reading["leave_out"] = given[1:]
        assert read(root, **reading) == right
