"""The formats of data of your own: COCO, label maps, class folders."""
