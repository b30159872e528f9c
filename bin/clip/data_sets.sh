# shellcheck shell=bash
# The data sets of the CLIP experiments; source this file after the flags are parsed.
data_sets=(stl10 pcam cars196 cifar10 food101 pets37 caltech101 cifar100)

# launch_for_each_data_set PLACE...: launches $experiment once for each data set, including ImageNet, with
# that data set in every PLACE. The quick mode has only one data set, with its own settings.
launch_for_each_data_set() {
  # shellcheck disable=SC2154 # set when the flags are parsed
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
