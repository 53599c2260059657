//! Real kubelets: the images as pods, nodes that are disturbed, and a cluster that leaves nothing behind.

mod bed;
mod disturbed;
mod images;
mod leaves_nothing;
mod nodes;
mod payloads;
mod plugin;
mod pools;
mod replays;
mod site;
mod tiers;
mod values;
