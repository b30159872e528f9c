# shellcheck shell=bash
# The data sets of the experiments with CLIP. Sourced once flags are parsed.
data_sets=(stl10 pcam cars196 cifar10 food101 pets37 caltech101 cifar100)

# launch_for_each_data_set PLACE...: launches $experiment with every data set at these places, and
# with ImageNet: one study for each. The quick mode has one data set, and settings for it.
launch_for_each_data_set() {
  # shellcheck disable=SC2154 # of the flags
  if [ "$mode" = quick ]; then
    launch "$experiment"
    return
  fi
  local data place places
  for data in "${data_sets[@]}" imagenet; do
    places=()
    for place in "$@"; do places+=("data@$place=$data"); done
    launch "$experiment" "${places[@]}"
  done
}
