//! Files from writer to reader on real nodes, while things break.
#![allow(clippy::unwrap_used)]

mod cluster;

use std::os::unix::fs::FileExt;
use std::time::Duration;

use cluster::{BUCKET, Cluster, chunk_files, content, eventually, get, put, read};
use futures::TryStreamExt;
use onefold_files::{
    Condition, CopyOptions, CreateOptions, FileSystem, FilesError, FinishOptions, ListRequest,
    SplitRequest, Usage,
};
use onefold_types::ClusterId;

async fn usage(files: &dyn FileSystem) -> Option<Usage> {
    files.usage().await.ok()
}

/// Waits until every chunk is sealed with all its replicas.
async fn all_replicated(files: &dyn FileSystem) {
    eventually("all chunks have their replicas", || async {
        let usage = usage(files).await?;
        let is_whole = usage.chunks_under_replicated == 0 && usage.repairs_running == 0;
        is_whole.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaving_nodes_hold_is_made_anew_before_they_go() {
    let mut cluster = Cluster::start(5).await;
    let (files, size) = (cluster.files(1), 3 << 20);
    for seed in 0..8 {
        put(&cluster.files(seed % 5 + 1), &format!("file-{seed}"), &content(size, seed))
            .await
            .unwrap();
    }
    all_replicated(&files).await;
    cluster.set_leaving(&[4, 5]);
    // Written while they leave.
    for seed in 8..12 {
        put(&cluster.files(seed % 5 + 1), &format!("file-{seed}"), &content(size, seed))
            .await
            .unwrap();
    }
    eventually("nothing counts on the leaving nodes", || async {
        let usage = usage(&files).await?;
        let leaving: Vec<u64> = usage.leaving.into_keys().map(|node| node.0).collect();
        assert_eq!(leaving, [4, 5]);
        let usage = self::usage(&files).await?;
        (usage.leaving.into_values().sum::<u64>() == 0).then_some(())
    })
    .await;
    cluster.stop(5).await;
    cluster.stop(4).await;
    let files = cluster.files(1);
    for seed in 0..12 {
        let data = get(&files, &format!("file-{seed}")).await.unwrap();
        assert!(data == content(size, seed), "file-{seed}");
    }
    let usage = eventually("the namespace answers", || usage(&files)).await;
    assert_eq!(usage.chunks_unavailable, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_every_size_read_back_on_every_node() {
    let cluster = Cluster::start(3).await;
    let sizes = [0, 1, 4096, 4097, 65_536, 1 << 20, (1 << 20) + 1, 9_999_999, 70 << 20];
    for (seed, size) in sizes.into_iter().enumerate() {
        let key = format!("file-{size}");
        let data = content(size, seed as u64);
        let writer = cluster.files(seed as u64 % 3 + 1);
        let info = put(&writer, &key, &data).await.unwrap();
        assert_eq!(info.size, size as u64);
        for node in 1..=3 {
            let reader = cluster.files(node).open(BUCKET, &key).await.unwrap();
            assert_eq!(*reader.info(), info);
            assert!(read(&reader).await.unwrap() == data, "{size} bytes on node {node}");
            let (from, to) = (size / 3, (size / 3 + 100_000).min(size));
            let range = reader.read_bytes(from as u64..to as u64).await.unwrap();
            assert!(range == data.slice(from..to), "a range of {size} bytes on node {node}");
        }
    }
    let files = cluster.files(1);
    let request = SplitRequest {
        bucket: BUCKET.to_owned(),
        target_bytes: 16 << 20,
        limit: 100,
        ..SplitRequest::default()
    };
    let page = files.splits(request).await.unwrap();
    let total: u64 = page.splits.iter().map(|split| split.length).sum();
    assert_eq!(total, sizes.iter().sum::<usize>() as u64);
    let big = page.splits.iter().filter(|split| split.length > 4096);
    assert!(big.clone().count() > 4);
    assert!(big.into_iter().all(|split| split.hosts.len() == 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_uses_the_files_through_any_node() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let data = content(6_000_000, 1);
    let info = put(&client, "a/b", &data).await.unwrap();
    assert_eq!(get(&cluster.files(2), "a/b").await.unwrap(), data);
    assert_eq!(client.stat(BUCKET, "a/b").await.unwrap(), info);
    let from = "/bucket/a/".parse().unwrap();
    let to = "/bucket/c/".parse().unwrap();
    client.rename(&from, &to, Condition::Always).await.unwrap();
    let copied = "/bucket/copy".parse().unwrap();
    let moved = "/bucket/c/b".parse().unwrap();
    client.copy(&moved, &copied, CopyOptions::default()).await.unwrap();
    client.make_directory(BUCKET, "empty").await.unwrap();
    let request = ListRequest {
        bucket: BUCKET.to_owned(),
        delimiter: Some("/".to_owned()),
        limit: 10,
        ..ListRequest::default()
    };
    let page = client.list(request).await.unwrap();
    assert_eq!(page.common_prefixes, vec!["c/", "empty/"]);
    assert_eq!(page.entries[0].key, "copy");
    let stopped = cluster.follower().await;
    cluster.stop(stopped).await;
    assert_eq!(get(&client, "copy").await.unwrap(), data);
    assert!(client.remove(BUCKET, "copy").await.unwrap());
    assert_eq!(client.remove_tree(BUCKET, "").await.unwrap(), 2);
    assert!(matches!(get(&client, "copy").await, Err(FilesError::NoSuchKey { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_visible_before_it_is_finished() {
    let cluster = Cluster::start(3).await;
    let (files, client) = (cluster.files(1), cluster.client());
    for files in [&files as &dyn FileSystem, &client] {
        let mut writer = files.create(BUCKET, "x", CreateOptions::default()).await.unwrap();
        writer.write(content(5_000_000, 1)).await.unwrap();
        assert!(matches!(files.stat(BUCKET, "x").await, Err(FilesError::NoSuchKey { .. })));
        drop(writer);
        let writer = files.create(BUCKET, "x", CreateOptions::default()).await.unwrap();
        writer.abort().await;
        let mut writer = files.create(BUCKET, "x", CreateOptions::default()).await.unwrap();
        writer.write(content(100, 1)).await.unwrap();
        let expected_md5 = Some([0; 16]);
        let wrong = FinishOptions { expected_md5, ..FinishOptions::default() };
        assert!(matches!(writer.finish(wrong).await, Err(FilesError::BadDigest { .. })));
        assert!(matches!(files.stat(BUCKET, "x").await, Err(FilesError::NoSuchKey { .. })));
    }
    put(&files, "x", &content(10, 1)).await.unwrap();
    let condition = Condition::IfAbsent;
    let options = CreateOptions { condition, ..CreateOptions::default() };
    let refused = client.create(BUCKET, "x", options).await;
    assert!(matches!(refused, Err(FilesError::PreconditionFailed { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_parts_becomes_one_file() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let upload = client.create_upload(BUCKET, "big", CreateOptions::default()).await.unwrap();
    let parts = [content(5 << 20, 1), content(6 << 20, 2), content(7, 3)];
    let mut etags = Vec::new();
    for number in [3_u16, 1, 2] {
        let files = cluster.files(number.into());
        let mut writer = files.upload_part(BUCKET, "big", &upload, number).await.unwrap();
        writer.write(parts[usize::from(number) - 1].clone()).await.unwrap();
        let part = writer.finish(FinishOptions::default()).await.unwrap();
        etags.push((number, part.etag));
    }
    etags.sort();
    let listed = client.list_parts(BUCKET, "big", &upload, 1, 10).await.unwrap();
    assert_eq!(listed.parts.iter().map(|part| part.number).collect::<Vec<_>>(), vec![2, 3]);
    let options = FinishOptions::default();
    let done =
        client.complete_upload(BUCKET, "big", &upload, &etags, Condition::Always, options).await;
    assert!(done.unwrap().etag.ends_with("-3"));
    assert!(get(&client, "big").await.unwrap() == parts.concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn small_files_share_chunks() {
    let cluster = Cluster::start(3).await;
    let puts = (0..200_u64).map(|seed| {
        let files = cluster.files(seed % 3 + 1);
        async move { put(&files, &format!("small/{seed}"), &content(5000, seed)).await }
    });
    futures::future::try_join_all(puts).await.unwrap();
    for seed in 0..200 {
        let read = get(&cluster.files(seed % 2 + 1), &format!("small/{seed}")).await.unwrap();
        assert_eq!(read, content(5000, seed));
    }
    let usage = cluster.files(1).usage().await.unwrap();
    assert_eq!((usage.files, usage.file_bytes), (200, 1_000_000));
    assert!(usage.chunks <= 12, "{} chunks for 200 small files", usage.chunks);
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_and_reading_go_on_when_a_node_dies() {
    let mut cluster = Cluster::start(3).await;
    let victim = cluster.follower().await;
    let survivor = if victim == 1 { 2 } else { 1 };
    let files = cluster.files(survivor);
    let before = content(12 << 20, 1);
    put(&files, "before", &before).await.unwrap();

    let during = content(12 << 20, 2);
    let mut writer = files.create(BUCKET, "during", CreateOptions::default()).await.unwrap();
    writer.write(during.slice(..5 << 20)).await.unwrap();
    let reader = files.open(BUCKET, "before").await.unwrap();
    let mut stream = reader.read(0..u64::MAX);
    let first = stream.try_next().await.unwrap().unwrap();
    cluster.stop(victim).await;
    writer.write(during.slice(5 << 20..)).await.unwrap();
    writer.finish(FinishOptions::default()).await.unwrap();
    let rest: Vec<_> = stream.try_collect().await.unwrap();
    assert!([first.to_vec(), rest.concat()].concat() == before);
    assert!(get(&files, "during").await.unwrap() == during);

    cluster.restart(victim).await;
    let back = cluster.files(victim);
    eventually("the node that came back reads", || async {
        get(&back, "during").await.ok().filter(|read| *read == during)
    })
    .await;
    all_replicated(&files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_may_die_while_files_are_written() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let files = cluster.files(if leader == 1 { 2 } else { 1 });
    let data = content(8 << 20, 1);
    let mut writer = files.create(BUCKET, "x", CreateOptions::default()).await.unwrap();
    writer.write(data.slice(..3 << 20)).await.unwrap();
    cluster.stop(leader).await;
    writer.write(data.slice(3 << 20..)).await.unwrap();
    writer.finish(FinishOptions::default()).await.unwrap();
    assert!(get(&files, "x").await.unwrap() == data);
    let small = content(5000, 2);
    put(&files, "small", &small).await.unwrap();
    assert_eq!(get(&files, "small").await.unwrap(), small);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_read_around_and_repaired() {
    let cluster = Cluster::start(3).await;
    let data = content(3 << 20, 1);
    put(&cluster.files(1), "x", &data).await.unwrap();
    // The bytes are on all three nodes: damage those that node 2 reads first, its own.
    let [path] = &chunk_files(&cluster.folder(2))[..] else { panic!("one chunk") };
    let good = std::fs::read(path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    let at = good.len() / 2;
    file.write_all_at(&[good[at] ^ 0x10], at as u64).unwrap();
    assert!(get(&cluster.files(2), "x").await.unwrap() == data);
    // Sealed when the lease of its writer ends or one asks; then replaced by a good copy.
    cluster.files(1).usage().await.unwrap();
    drop(file);
    eventually("the damaged replica is replaced", || async {
        let now = std::fs::read(path).ok()?;
        (now.get(at) == Some(&good[at])).then_some(())
    })
    .await;
    all_replicated(&cluster.files(1)).await;
    assert!(get(&cluster.files(2), "x").await.unwrap() == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_nodes_chunks_are_replicated_again() {
    let mut cluster = Cluster::start(4).await;
    let data = content(20 << 20, 1);
    let leader = cluster.leader().await;
    let files = cluster.files(leader);
    put(&files, "x", &data).await.unwrap();
    put(&files, "y", &content(9000, 2)).await.unwrap();
    let holder =
        (1..=4).find(|node| *node != leader && !chunk_files(&cluster.folder(*node)).is_empty());
    cluster.stop(holder.unwrap()).await;
    eventually("the dead node is noticed", || async {
        let usage = usage(&files).await?;
        usage.servers.iter().any(|server| !server.alive).then_some(())
    })
    .await;
    all_replicated(&files).await;
    for node in (1..=4).filter(|node| Some(*node) != holder) {
        assert!(!chunk_files(&cluster.folder(node)).is_empty(), "node {node} has a replica");
        assert!(get(&cluster.files(node), "x").await.unwrap() == data);
    }
    cluster.restart(holder.unwrap()).await;
    assert!(get(&files, "x").await.unwrap() == data);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_after_all_nodes_restarted() {
    let mut cluster = Cluster::start(3).await;
    let sizes = [100, 50_000, 5_000_000];
    for (seed, size) in sizes.into_iter().enumerate() {
        put(&cluster.files(1), &format!("f{size}"), &content(size, seed as u64)).await.unwrap();
    }
    for node in 1..=3 {
        cluster.stop(node).await;
    }
    for node in 1..=3 {
        cluster.restart(node).await;
    }
    for (seed, size) in sizes.into_iter().enumerate() {
        let data = get(&cluster.files(2), &format!("f{size}")).await.unwrap();
        assert!(data == content(size, seed as u64));
    }
    put(&cluster.files(3), "new", &content(100_000, 9)).await.unwrap();
    assert_eq!(get(&cluster.files(1), "new").await.unwrap(), content(100_000, 9));
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_bytes_leave_the_disks() {
    let cluster = Cluster::start_with(3, Duration::from_millis(100)).await;
    let files = cluster.files(1);
    put(&files, "x", &content(65 << 20, 1)).await.unwrap();
    files.remove(BUCKET, "x").await.unwrap();
    eventually("the full chunk is gone everywhere", || async {
        let sizes = (1..=3).flat_map(|node| chunk_files(&cluster.folder(node)));
        let sizes = sizes.map(|path| std::fs::metadata(path).map_or(0, |data| data.len()));
        (sizes.max().unwrap_or(0) < 64 << 20).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_alone_works_and_refuses_another_clusters_folder() {
    let mut cluster = Cluster::start(1).await;
    let data = content(2_000_000, 1);
    put(&cluster.files(1), "x", &data).await.unwrap();
    assert!(get(&cluster.files(1), "x").await.unwrap() == data);
    cluster.stop(1).await;
    let refused = cluster.restart_as(1, ClusterId(2)).await;
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("belongs to cluster"), "{message}");
    cluster.restart(1).await;
    assert!(get(&cluster.files(1), "x").await.unwrap() == data);
}
