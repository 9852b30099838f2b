"""Files and folders: CAM files, label PNGs, photographs, and the records that say what they were made from."""
