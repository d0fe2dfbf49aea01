//! The resource graph of a plan as a drawing: machines are boxes, what changes are nodes, and an arrow says what comes
//! before what. Machines on which the same happens share a box; a plan that is too large for that is drawn owner by owner.
//!
//! The layout is layered: a node stands to the right of everything that it waits for. It is made from the plan alone and
//! always the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use plumb_model::plan::ChangeAction;
use plumb_model::{Address, OwnerName};

use super::html::{class, escaped};
use super::outline::Outline;
use super::{wide, words};

/// Nodes that are drawn before owners stand for their resources, and owners that are drawn at all.
const MAX_NODES: usize = 120;
/// Arrows that are thinned out: beyond this it takes too long, and nobody could follow them.
const MAX_THINNED: usize = 2_000;
/// The width that boxes are put side by side in.
const CANVAS: usize = 1180;

const NODE_WIDTH: usize = 196;
const NODE_HEIGHT: usize = 44;
const GAP_X: usize = 56;
const GAP_Y: usize = 12;
const PADDING: usize = 14;
const TITLE: usize = 26;
const BETWEEN: usize = 16;
/// Columns of text that fit beside a node's sign.
const LABEL: usize = 22;

/// A drawing.
pub struct Graph {
    /// The SVG.
    pub svg: String,
    /// What it says in words, for who cannot see it.
    pub words: String,
    /// What is not drawn; none if all of it is.
    pub remark: Option<String>,
}

#[derive(Debug, Clone)]
struct Node {
    action: ChangeAction,
    name: String,
    below: String,
    /// Where on the page its details are.
    anchor: String,
}

#[derive(Debug, Default)]
struct Frame {
    title: String,
    nodes: Vec<Node>,
    /// From, to: indices of nodes in this frame.
    edges: BTreeSet<(usize, usize)>,
}

/// Draws a plan; none if there is nothing to draw.
pub fn graph(outline: &Outline<'_>) -> Option<Graph> {
    let (frames, between, remark) = match resources(outline) {
        Some((frames, between)) => (frames, between, None),
        None => owners(outline),
    };
    if frames.is_empty() {
        return None;
    }
    let nodes: usize = frames.iter().map(|f| f.nodes.len()).sum();
    let arrows: usize = frames.iter().map(|f| f.edges.len()).sum::<usize>() + between.len();
    let words = format!(
        "The resource graph: {} and {}. The same is said in words below.",
        words::count(nodes, "node"),
        words::count(arrows, "arrow")
    );
    Some(Graph {
        svg: draw(frames, &between, &words),
        words,
        remark,
    })
}

/// Frame and node.
type At = (usize, usize);

/// Frames, and the arrows between them.
type Drawn = (Vec<Frame>, BTreeSet<(At, At)>);

/// A node for each entry of each set of like machines; none if that is too much.
fn resources(outline: &Outline<'_>) -> Option<Drawn> {
    let entries: Vec<_> = outline.owners.iter().flat_map(|o| &o.entries).collect();
    let mut on: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut entry_of: HashMap<&Address, usize> = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        for change in &entry.members {
            on.entry(change.address.machine.as_str())
                .or_default()
                .insert(index);
            entry_of.insert(&change.address, index);
        }
    }
    let mut alike: BTreeMap<&BTreeSet<usize>, Vec<&str>> = BTreeMap::new();
    for (machine, set) in &on {
        alike.entry(set).or_default().push(machine);
    }
    if alike.keys().map(|set| set.len()).sum::<usize>() > MAX_NODES {
        return None;
    }
    let mut sets: Vec<(&BTreeSet<usize>, Vec<&str>)> = alike.into_iter().collect();
    sets.sort_by(|a, b| a.1.cmp(&b.1));
    let mut frames = Vec::new();
    let mut place: HashMap<(&str, usize), At> = HashMap::new();
    for (set, machines) in &sets {
        let names = words::names(machines.iter().copied());
        let mut frame = Frame {
            title: match names.count {
                1 => format!("machine {}", names.list(true)),
                _ => names.counted("machine", false),
            },
            ..Frame::default()
        };
        for index in *set {
            let entry = entries[*index];
            let here: Vec<&Address> = entry
                .members
                .iter()
                .map(|c| &c.address)
                .filter(|a| machines.contains(&a.machine.as_str()))
                .collect();
            for machine in machines {
                place.insert((machine, *index), (frames.len(), frame.nodes.len()));
            }
            let address = &entry.first().address;
            frame.nodes.push(Node {
                action: entry.first().action,
                name: format!("{} {}", address.kind, words::resource_name(&here)),
                below: address.owner.to_string(),
                anchor: format!("r{index}"),
            });
        }
        frames.push(frame);
    }
    let mut between = BTreeSet::new();
    for (first, second) in &outline.plan.order {
        let at = |a: &Address| {
            let index = entry_of.get(a)?;
            place.get(&(a.machine.as_str(), *index)).copied()
        };
        match (at(first), at(second)) {
            (Some((f, a)), Some((g, b))) if f == g && a != b => {
                frames[f].edges.insert((a, b));
            }
            (Some(a), Some(b)) if a.0 != b.0 => {
                between.insert((a, b));
            }
            _ => {}
        }
    }
    Some((frames, between))
}

/// A node for each owner.
fn owners(outline: &Outline<'_>) -> (Vec<Frame>, BTreeSet<(At, At)>, Option<String>) {
    let mut order: Vec<usize> = (0..outline.owners.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(outline.owners[*at].weight()));
    order.truncate(MAX_NODES);
    order.sort_unstable();
    let mut frame = Frame {
        title: words::count(outline.plan.blast_radius.machines.len(), "machine"),
        ..Frame::default()
    };
    let mut place: HashMap<&OwnerName, usize> = HashMap::new();
    for at in &order {
        let owner = &outline.owners[*at];
        place.insert(owner.name, frame.nodes.len());
        frame.nodes.push(Node {
            action: owner.change.map_or(ChangeAction::Update, |c| c.action),
            name: owner.name.to_string(),
            below: words::count(owner.resources(), "resource"),
            anchor: format!("o-{}", owner.name),
        });
    }
    for (first, second) in &outline.plan.order {
        if let (Some(a), Some(b)) = (place.get(&first.owner), place.get(&second.owner))
            && a != b
        {
            frame.edges.insert((*a, *b));
        }
    }
    let left = outline.owners.len() - frame.nodes.len();
    let mut remark = "Too much to draw every resource: each box stands for one app.".to_owned();
    if left > 0 {
        let _ = write!(
            remark,
            " {} that {} felt least {} left out.",
            words::count(left, "app"),
            if left == 1 { "is" } else { "are" },
            if left == 1 { "is" } else { "are" }
        );
    }
    (vec![frame], BTreeSet::new(), Some(remark))
}

/// Takes away the arrows that others imply.
fn thinned(count: usize, edges: &BTreeSet<(usize, usize)>) -> BTreeSet<(usize, usize)> {
    if edges.len() > MAX_THINNED {
        return edges.clone();
    }
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (a, b) in edges {
        next[*a].push(*b);
    }
    let reaches = |from: usize, to: usize| {
        let mut seen = vec![false; count];
        let mut open: Vec<usize> = next[from].iter().copied().filter(|n| *n != to).collect();
        while let Some(node) = open.pop() {
            if node == to {
                return true;
            }
            if !std::mem::replace(&mut seen[node], true) {
                open.extend(&next[node]);
            }
        }
        false
    };
    edges
        .iter()
        .copied()
        .filter(|(a, b)| !reaches(*a, *b))
        .collect()
}

/// The columns of a frame, each with its nodes from top to bottom.
fn layers(count: usize, edges: &BTreeSet<(usize, usize)>) -> Vec<Vec<usize>> {
    let mut layer = vec![0; count];
    let mut waits = vec![0usize; count];
    let mut next: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (a, b) in edges {
        next[*a].push(*b);
        before[*b].push(*a);
        waits[*b] += 1;
    }
    let mut ready: Vec<usize> = (0..count).filter(|n| waits[*n] == 0).collect();
    // What is on a cycle, as owners can be, is never ready, and stays in the first column.
    while let Some(node) = ready.pop() {
        for other in &next[node] {
            layer[*other] = layer[*other].max(layer[node] + 1);
            waits[*other] -= 1;
            if waits[*other] == 0 {
                ready.push(*other);
            }
        }
    }
    let tied: Vec<bool> = (0..count)
        .map(|n| !next[n].is_empty() || !before[n].is_empty())
        .collect();
    let columns = (0..count)
        .filter(|n| tied[*n])
        .map(|n| layer[n] + 1)
        .max()
        .unwrap_or(0);
    let mut layers: Vec<Vec<usize>> = vec![Vec::new(); columns];
    for node in (0..count).filter(|n| tied[*n]) {
        layers[layer[node]].push(node);
    }
    // Each node moves to the middle of its neighbours, forth and back, so that arrows cross less.
    for sweep in 0..4 {
        let mut row = vec![0usize; count];
        for column in &layers {
            for (at, node) in column.iter().enumerate() {
                row[*node] = at;
            }
        }
        let neighbours = if sweep % 2 == 0 { &before } else { &next };
        for column in &mut layers {
            column.sort_by_key(|node| {
                let all = &neighbours[*node];
                match all.len() {
                    0 => row[*node] * 1000,
                    n => all.iter().map(|o| row[*o] * 1000).sum::<usize>() / n,
                }
            });
        }
    }
    // What is tied to nothing fills rows beneath.
    let free: Vec<usize> = (0..count).filter(|n| !tied[*n]).collect();
    let wanted = match free.len() {
        0 => 0,
        1..=3 => 1,
        4..=8 => 2,
        n if n < 30 => 3,
        _ => 4,
    };
    while layers.len() < wanted {
        layers.push(Vec::new());
    }
    for node in free {
        if let Some(shortest) = layers.iter_mut().min_by_key(|column| column.len()) {
            shortest.push(node);
        }
    }
    layers
}

/// Where things are in the drawing, in its own units.
#[derive(Debug, Clone, Copy, Default)]
struct Point {
    x: usize,
    y: usize,
}

fn draw(frames: Vec<Frame>, between: &BTreeSet<(At, At)>, title: &str) -> String {
    let mut body = String::new();
    let mut arrows = String::new();
    let mut nodes = String::new();
    let mut places: Vec<Vec<Point>> = Vec::new();
    let (mut at, mut row_height, mut width) = (Point::default(), 0, 0);
    for frame in &frames {
        let edges = thinned(frame.nodes.len(), &frame.edges);
        let layers = layers(frame.nodes.len(), &edges);
        let rows = layers.iter().map(Vec::len).max().unwrap_or(0);
        let inner = layers.len() * (NODE_WIDTH + GAP_X) - GAP_X;
        let frame_width = inner + 2 * PADDING;
        let frame_height = TITLE + rows * (NODE_HEIGHT + GAP_Y) - GAP_Y + 2 * PADDING;
        if at.x > 0 && at.x + frame_width > CANVAS {
            at = Point {
                x: 0,
                y: at.y + row_height + BETWEEN,
            };
            row_height = 0;
        }
        let _ = write!(
            body,
            "<rect class=\"box\" x=\"{}\" y=\"{}\" width=\"{frame_width}\" height=\"{frame_height}\" rx=\"8\"/>\
             <text class=\"boxname\" x=\"{}\" y=\"{}\">{}</text>",
            at.x,
            at.y,
            at.x + PADDING,
            at.y + TITLE - 6,
            escaped(&wide::cut(&frame.title, frame_width / 8)),
        );
        let mut own = vec![Point::default(); frame.nodes.len()];
        for (column, layer) in layers.iter().enumerate() {
            for (row, node) in layer.iter().enumerate() {
                own[*node] = Point {
                    x: at.x + PADDING + column * (NODE_WIDTH + GAP_X),
                    y: at.y + TITLE + PADDING + row * (NODE_HEIGHT + GAP_Y),
                };
            }
        }
        for (a, b) in &edges {
            arrow(&mut arrows, own[*a], own[*b]);
        }
        for (node, point) in frame.nodes.iter().zip(&own) {
            draw_node(&mut nodes, node, *point);
        }
        places.push(own);
        width = width.max(at.x + frame_width);
        row_height = row_height.max(frame_height);
        at.x += frame_width + BETWEEN;
    }
    for ((f, a), (g, b)) in between.iter().take(MAX_NODES * 2) {
        arrow(&mut arrows, places[*f][*a], places[*g][*b]);
    }
    let (width, height) = (width + 2, at.y + row_height + 2);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"{}\" viewBox=\"-1 -1 {width} {height}\" width=\"{width}\" height=\"{height}\">\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path class=\"tip\" d=\"M0 0L8 4L0 8z\"/></marker></defs>\
         {body}{arrows}{nodes}</svg>",
        escaped(title)
    )
}

fn arrow(out: &mut String, from: Point, to: Point) {
    let (x1, y1) = (from.x + NODE_WIDTH, from.y + NODE_HEIGHT / 2);
    let (x2, y2) = (to.x, to.y + NODE_HEIGHT / 2);
    let bend = if x2 > x1 { (x2 - x1) / 2 } else { GAP_X };
    let _ = write!(
        out,
        "<path class=\"edge\" marker-end=\"url(#tip)\" d=\"M{x1} {y1}C{} {y1} {} {y2} {x2} {y2}\"/>",
        x1 + bend,
        x2.saturating_sub(bend),
    );
}

fn draw_node(out: &mut String, node: &Node, at: Point) {
    let _ = write!(
        out,
        "<a href=\"#{}\"><g class=\"node {}\"><title>{} {} ({}): {}</title>\
         <rect x=\"{}\" y=\"{}\" width=\"{NODE_WIDTH}\" height=\"{NODE_HEIGHT}\" rx=\"6\"/>\
         <text class=\"sign\" x=\"{}\" y=\"{}\">{}</text>\
         <text class=\"name\" x=\"{}\" y=\"{}\">{}</text>\
         <text class=\"below\" x=\"{}\" y=\"{}\">{}</text></g></a>",
        node.anchor,
        class(node.action),
        words::mark(node.action),
        escaped(&node.name),
        escaped(&node.below),
        words::action(node.action),
        at.x,
        at.y,
        at.x + 18,
        at.y + 28,
        words::mark(node.action),
        at.x + 36,
        at.y + 19,
        escaped(&wide::cut(&node.name, LABEL)),
        at.x + 36,
        at.y + 35,
        escaped(&wide::cut(&node.below, LABEL + 2)),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_stands_right_of_what_it_waits_for_and_implied_arrows_go() {
        let edges: BTreeSet<_> = [(0, 1), (1, 2), (0, 2), (3, 2)].into();
        let few = thinned(5, &edges);
        assert_eq!(few, [(0, 1), (1, 2), (3, 2)].into());
        // 4 is tied to nothing, and fills up the shortest column.
        assert_eq!(layers(5, &few), [vec![0, 3], vec![1, 4], vec![2]]);
        // Owners may wait for one another.
        assert_eq!(layers(2, &[(0, 1), (1, 0)].into()), [vec![0, 1]]);
    }
}
